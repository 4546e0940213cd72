"""What people bring: tables, names, captions beside images, splits and what lies about, as they are
found in folders of images."""

import errno
import io
import json
import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset
from t2i.plugins.common.images import walk as walk_module
from t2i.plugins.common.images.splits import by_hash
from t2i.plugins.datasets.imagefolder.recognising import recognise

NAMES = [f"{number}.png" for number in range(12)]
SAID = {name: (f"bird {number}",) for number, name in enumerate(NAMES)}


def opened(root, split="train", **settings):
    own = {"dir": str(root), "image_size": 8, **settings}
    return open_dataset(registry().datasets.choose("imagefolder", own, "data set"), split)


def captions(root, **settings):
    """The captions of all sound examples of both splits, by the file's name."""
    found = {}
    for split in ("train", "val"):
        data = opened(root, split, **settings)
        for index in range(len(data)):
            try:
                example = data[index]
            except BrokenExample:
                continue
            found[example.key.rpartition("/")[2]] = example.captions
    return found


def told(data):
    """What was found, as one text, and what was passed over."""
    return "\n".join(data.contents().found), dict(data.contents().passed_over)


@pytest.fixture
def put(tmp_path):
    """`put(path, content)` writes a file; without content, an image of its own."""
    number = 0

    def write(path, content=None, encoding="utf-8"):
        nonlocal number
        number += 1
        file = tmp_path / "set" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            content = buffer.getvalue()
        file.write_bytes(content.encode(encoding) if isinstance(content, str) else content)
        return tmp_path / "set"

    write("README.md", "")
    return write


def many(form, names=NAMES):
    return "".join(form.format(n=name, i=i) for i, name in enumerate(names))


def objects(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def numbered(**columns):
    """JSON rows whose columns are made by functions of (name, number)."""
    return [{key: make(n, i) for key, make in columns.items()} for i, n in enumerate(NAMES)]


def name(n, i):
    return n


def bird(n, i):
    return f"bird {i}"


TABLES = {
    "comma": ("captions.txt", "image,caption\n" + many("{n},bird {i}\n")),
    "semicolon": ("metadata.csv", "file_name;text\r\n" + many("{n};bird {i}\r\n")),
    "tab": ("list.tsv", "Filename\tCaption\n" + many("{n}\tbird {i}\n")),
    "bar and spaces": (
        "results.csv", "image_name| comment_number| comment\n" + many("{n}| 0| bird {i}\n")),
    "a spreadsheet's sep": ("x.csv", "sep=;\nImage;Caption;;\n" + many("{n};bird {i};;\n")),
    "numbers of captions": ("Flickr.token.txt", many("{n}#0\tbird {i}\n")),
    "no header": ("list.txt", many("{n}|bird {i}\n")),
    "no header, a space": ("list.txt", many("{n} bird {i}\n")),
    "an index": ("data.csv", ",file,label\n" + many("{i},{n},bird {i}\n")),
    "jsonl": ("metadata.jsonl", objects(numbered(file_name=name, prompt=bird))),
    "jsonl in json": ("metadata.json", objects(numbered(image=name, description=bird))),
    "objects": ("any.json", json.dumps(numbered(img=name, sentence=bird, width=lambda n, i: i))),
    "a mapping": ("captions.json", json.dumps({n: f"bird {i}" for i, n in enumerate(NAMES)})),
    "mapped objects": (
        "data.json", json.dumps({n: {"caption": f"bird {i}"} for i, n in enumerate(NAMES)})),
    "columns": ("data.json", json.dumps(
        {"file_name": NAMES, "text": [f"bird {i}" for i in range(12)]})),
    "within": ("data.json", json.dumps({"version": 1, "items": numbered(path=name, title=bird)})),
    "joined": ("notes.json", json.dumps({
        "images": numbered(id=lambda n, i: i, file_name=name),
        "annotations": numbered(image_id=lambda n, i: i, caption=bird)})),
    "sentences": ("dataset.json", json.dumps({
        "images": numbered(filename=name, sentences=lambda n, i: [{"raw": f"bird {i}"}])})),
    "the only texts": (
        "metadata.jsonl", objects(numbered(file_name=name, remark=bird, score=lambda n, i: i))),
    "lists in csv": ("metadata.csv", "file_name,raw\n" + many('{n},"[""bird {i}""]"\n')),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_tables_are_read_as_they_are(put, kind):
    file, content = TABLES[kind]
    for image in NAMES:
        put(f"Images/{image}")
    assert captions(put(file, content)) == SAID


def test_one_caption_stays_one_and_its_words_stay_apart(put):
    for image in NAMES[:4]:
        put(image)
    root = put("metadata.csv", (
        'file_name,text\r\n0.png,"two\r\nlines"\r\n1.png,"a\u2028b\x0cc"\r\n'
        '2.png, "a, ""b"""\r\n3.png,one, two\r\n'
    ))  # fmt: skip
    assert captions(root) == {
        "0.png": ("two lines",), "1.png": ("a b c",), "2.png": ('a, "b"',), "3.png": ("one, two",),
    }  # fmt: skip


def test_a_quotation_mark_that_is_not_closed_is_refused_or_read_as_it_is(put):
    for image in NAMES:
        put(image)
    root = put("metadata.csv", "file_name,text\n" + many('{n},"bird {i}\n'))
    with pytest.raises(UserError, match=r"metadata\.csv, row 2: a quotation mark is not closed"):
        opened(root)
    (root / "metadata.csv").unlink()
    put("captions.tsv", "file_name\ttext\n" + many('{n}\t"bird {i}\n'))
    assert captions(root) == {n: (f'"bird {i}',) for i, n in enumerate(NAMES)}


PLACES = {
    "dot": "./{n}", "backslash": "sub\\{n}", "absolute": "/data/pics/{n}", "drive": "C:\\me\\{n}",
    "url": "https://host/a/{n}?w=1", "another folder": "pics/{n}", "capitals": "SUB/{n}",
    "spaces": "  sub/{n} ", "above": "../set/sub/{n}",
}  # fmt: skip


@pytest.mark.parametrize("kind", PLACES)
def test_names_of_other_places_are_matched(put, kind):
    for image in NAMES:
        put(f"sub/{image}")
    root = put("metadata.jsonl", objects(
        {"file_name": PLACES[kind].format(n=n), "text": f"bird {i}"} for i, n in enumerate(NAMES)
    ))  # fmt: skip
    assert captions(root) == SAID


def test_endings_may_be_missing_and_letters_composed(put):
    for number in range(12):
        put(unicodedata.normalize("NFD", f"caf\u00e9 {number}.png"))
    root = put("metadata.csv", "id,caption\n" + "".join(f"caf\u00e9 {i},b\n" for i in range(12)))
    assert len(captions(root)) == 12


def test_a_name_never_takes_another_splits_image(put):
    for image in NAMES:
        put(f"train/{image}")
    root = put("metadata.csv", "file_name,text\n" + many("test/{n},bird {i}\n"))
    with pytest.raises(UserError, match=r"no caption for the 12 images; .*names no image"):
        opened(root)


def test_a_name_that_fits_two_images_is_refused(put):
    put("a/0.png")
    put("b/0.png")
    root = put("metadata.csv", "file_name,text\n0.png,bird\n")
    with pytest.raises(UserError, match=r"'0\.png' .* may be a/0\.png or b/0\.png"):
        opened(root)


def test_names_without_an_image_are_broken_and_told(put):
    for image in NAMES[:10]:
        put(image)
    root = put("metadata.csv", "file_name,text\n" + many("{n},bird {i}\n"))
    assert captions(root) == {n: SAID[n] for n in NAMES[:10]}
    data = [opened(root, split) for split in ("train", "val")]
    assert sum(map(len, data)) == 12
    assert "2 names in metadata.csv are those of no image, such as '10.png'" in told(data[0])[0]


def test_tables_of_several_folders_are_joined_and_one_above_splits_serves_both(put):
    for image in NAMES:
        put(f"{'a' if int(image[:-4]) < 6 else 'b'}/{image}")
    put("a/metadata.jsonl", objects(numbered(file_name=name, text=bird)[:6]))
    root = put("b/metadata.jsonl", objects(numbered(file_name=name, text=bird)[6:]))
    assert captions(root) == SAID
    for letter in "ab":
        (root / letter / "metadata.jsonl").unlink()
    (root / "a").rename(root / "train")
    (root / "b").rename(root / "test")
    put("train/metadata.jsonl", objects({"file_name": f"train/{n}", "text": "x"} for n in NAMES))
    assert opened(root).captions(0) == ("x",)
    (root / "train" / "metadata.jsonl").unlink()
    rows = [(f"{'train' if i < 6 else 'test'}/{n}", f"bird {i}") for i, n in enumerate(NAMES)]
    put("metadata.csv", "file_name,text\n" + "".join(f"{a},{b}\n" for a, b in rows))
    assert captions(root) == SAID
    assert (len(opened(root)), len(opened(root, "val"))) == (6, 6)


def test_columns_are_named_by_settings_and_errors_list_them(put):
    for image in NAMES:
        put(image)
    root = put("metadata.jsonl", objects(numbered(where=name, one=bird, two=lambda n, i: "x")))
    with pytest.raises(UserError, match=r"columns: where, one, two; say which with --set data\.c"):
        opened(root)
    assert captions(root, caption_column="ONE", name_column="where") == SAID
    with pytest.raises(UserError, match=r"no column 'three' \(data\.caption_column\); its columns"):
        opened(root, caption_column="three")
    with pytest.raises(UserError, match=r"column 'two' names no image that is there: 'x'"):
        opened(root, name_column="two", caption_column="one")


def test_of_two_caption_columns_the_first_known_is_taken_and_told(put):
    for image in NAMES:
        put(image)
    rows = numbered(file_name=name, prompt=lambda n, i: "x", text=bird)
    root = put("metadata.jsonl", objects(rows))
    assert captions(root) == SAID
    assert "column 'text' of metadata.jsonl" in told(opened(root))[0]
    assert "'prompt' is not used (data.caption_column chooses)" in told(opened(root))[0]


def test_two_tables_need_a_word(put):
    for image in NAMES:
        put(image)
    put("a.csv", "image,text\n" + many("{n},x\n"))
    root = put("b.csv", "image,text\n" + many("{n},bird {i}\n"))
    with pytest.raises(UserError, match=r"several tables name images: a\.csv, b\.csv; .*data\.t"):
        opened(root)
    assert captions(root, table="b.csv") == SAID
    with pytest.raises(UserError, match=r"no table 'c\.csv' \(data\.table\); tables are a\.csv"):
        opened(root, table="c.csv")


BESIDE = {
    "txt": "{i}.txt", "kohya": "{i}.caption", "capitals": "{i}.TXT", "whole name": "{n}.txt",
    "another folder": "captions/{i}.txt",
}  # fmt: skip


@pytest.mark.parametrize("kind", BESIDE)
def test_captions_beside_images(put, kind):
    for number, image in enumerate(NAMES):
        put(image)
        root = put(BESIDE[kind].format(n=image, i=number), f"bird {number}\r\n\r\nsecond\r\n")
    assert captions(root) == {n: (*said, "second") for n, said in SAID.items()}


def test_a_document_beside_each_image(put):
    for number, image in enumerate(NAMES):
        put(image)
        root = put(f"{number}.json", json.dumps({"url": "x", "Caption": f"bird {number}"}))
    assert captions(root) == SAID


@pytest.mark.parametrize(("encoding", "text"), [("cp1252", "caf\u00e9"), ("gbk", "红色的鸟")])
def test_other_encodings_are_refused_by_name_and_read_by_the_setting(put, encoding, text):
    for number in range(4):
        put(f"{number}.png")
        root = put(f"{number}.txt", text, encoding)
    with pytest.raises(UserError, match=r"0\.txt: not UTF-8 .*--set data\.encoding="):
        opened(root)
    assert set(captions(root, encoding=encoding).values()) == {(text,)}


def test_what_systems_and_programs_leave_is_left_alone_and_counted(put):
    for number, image in enumerate(NAMES):
        put(image)
        put(f"{number}.txt", f"bird {number}")
        put(f"._{image}", "notes")
        put(f"__MACOSX/._{image}", "notes")
    put(".DS_Store", "")
    put(".ipynb_checkpoints/0-checkpoint.png")
    put("photo.HEIC", "")
    put("lost.caption", "without an image")
    root = put("notes.doc", "")
    (root / "again").symlink_to(".", target_is_directory=True)
    (root / "gone.png").symlink_to("nowhere")
    assert captions(root) == SAID
    assert told(opened(root))[1] == {
        "a Mac's notes on a file (._NAME)": 12,
        "file of the system (.DS_Store)": 1,
        "folder of the system (__MACOSX)": 1,
        "hidden folder (.ipynb_checkpoints)": 1,
        "image of a kind that is not read (.heic)": 1,
        "link that leads nowhere": 1,
        "link to a folder that is read already": 1,
        "not an image file (.doc)": 1,
        "not an image file (.md)": 1,
        "text file without an image of its name (.caption)": 1,
    }


def test_a_folder_that_may_not_be_read_is_counted(put, monkeypatch):
    root = put("a.png")
    put("closed/b.png")
    real = os.scandir

    def scandir(path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(walk_module.os, "scandir", scandir)
    data = opened(root, caption="x")
    assert len(data) == 1
    assert told(data)[1]["folder that cannot be read (Permission denied)"] == 1


def test_images_that_a_table_does_not_name_are_counted(put):
    for image in NAMES:
        put(image)
    root = put("metadata.csv", "file_name,text\n" + many("{n},bird {i}\n", NAMES[:9]))
    assert len(captions(root)) == 9
    assert told(opened(root))[1]["image that metadata.csv does not name"] == 3


@pytest.mark.parametrize(
    ("train", "held", "path"),
    [
        ("train", "valid", ""), ("Train", "DEV", ""), ("train", "validation", "wrapped/"),
        ("train_images", "test_images", ""), ("train2017", "val2017", "images/"),
    ],
)  # fmt: skip
def test_folders_of_splits(put, train, held, path):
    for number, image in enumerate(NAMES):
        put(f"{path}{train if number < 9 else held}/{image}")
    root = put(f"{path}other/x.png")
    if path:
        (root / path / "other" / "x.png").unlink()
    assert [len(opened(root, split, caption="x")) for split in ("train", "val")] == [9, 3]
    if not path:
        reasons = told(opened(root, caption="x"))[1]
        assert reasons["image in other/, which is no folder of a split"] == 1


def test_tables_make_splits_by_a_column_or_by_their_names(put):
    for image in NAMES:
        put(f"images/{image}")
    words = ["train", "restval", "val", "test"] * 3
    put("d.json", json.dumps([
        {**row, "split": word}
        for row, word in zip(numbered(filename=name, caption=bird), words, strict=True)
    ]))  # fmt: skip
    root = put("README.md", "")
    assert [len(opened(root, split)) for split in ("train", "val")] == [6, 3]
    assert told(opened(root))[1]["image of split 'test'"] == 3
    (root / "d.json").unlink()
    put("train.csv", "image,text\n" + many("{n},x\n", NAMES[:7]))
    put("test.csv", "image,text\n" + many("{n},x\n", NAMES[7:]))
    assert [len(opened(root, split)) for split in ("train", "val")] == [7, 5]


@pytest.mark.parametrize("count", [2, 3, 4, 8])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.99])
def test_a_split_by_hash_leaves_none_empty(put, count, share):
    for number in range(count):
        root = put(f"{number}.png")
    sizes = [len(opened(root, s, caption="x", val_share=share)) for s in ("train", "val")]
    assert min(sizes) >= 1
    assert sum(sizes) == count


def test_one_image_serves_as_both(put):
    root = put("a.png")
    for split in ("train", "val"):
        data = opened(root, split, caption="x")
        assert len(data) == 1
        assert "one image alone serves as train and as val" in told(data)[0]


def test_more_images_move_no_old_one_once_both_splits_have_some():
    few = by_hash([str(i) for i in range(40)], 0.1)
    more = by_hash([str(i) for i in range(90)], 0.1)
    assert set(few["val"]) <= set(more["val"])
    assert set(few["train"]) <= set(more["train"])


def test_images_in_an_archive_with_captions_beside_it_or_in_it(put, tmp_path):
    root = put("metadata.jsonl", objects(numbered(file_name=name, text=bird)))
    with zipfile.ZipFile(root / "images.zip", "w") as archive:
        for image in NAMES:
            archive.writestr(f"images/{image}", put(image).joinpath(image).read_bytes())
            (root / image).unlink()
            archive.writestr(f"__MACOSX/images/._{image}", "notes")
    assert captions(root) == SAID
    (root / "metadata.jsonl").unlink()
    with zipfile.ZipFile(root / "images.zip", "a") as archive:
        for number in range(12):
            archive.writestr(f"images/{number}.txt", f"bird {number}")
    assert captions(root) == SAID
    (root / "other.zip").write_bytes((root / "images.zip").read_bytes())
    with pytest.raises(UserError, match="several archives hold images"):
        opened(root)


def test_no_caption_is_told_once_with_what_was_seen(put):
    for image in NAMES:
        put(image)
    root = put("captions.json", '{"0.png": ')
    with pytest.raises(UserError) as caught:
        opened(root)
    for part in ("the 12 images", "captions.json (not JSON", "wanted: a.txt beside a.jpg", ".md"):
        assert part in str(caught.value)
    assert len(captions(root, caption="x")) == 12


def test_a_png_with_megabytes_of_text_or_profile_is_an_image(put):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", "node " * 600_000, zip=True)
    for key, more in {
        "text": {"pnginfo": texts}, "profile": {"icc_profile": bytes(3_000_000)},
    }.items():  # fmt: skip
        buffer = io.BytesIO()
        Image.new("RGB", (9, 9), "red").save(buffer, "PNG", **more)
        root = put(f"{key}.png", buffer.getvalue())
    for split in ("train", "val"):
        assert opened(root, split, caption="x")[0].image[4, 4].tolist() == [255, 0, 0]


def test_the_limit_of_pixels_is_a_setting(put):
    root = put("a.png")
    with pytest.raises(BrokenExample, match=r"12 x 9 pixels, more than 107; .*data\.max_pixels"):
        opened(root, caption="x", max_pixels=107)[0]
    assert opened(root, caption="x", max_pixels=108)[0].image.shape == (8, 8, 3)


def test_fit_says_how_images_become_square_and_is_in_the_fingerprint(put):
    root = put("a.png")
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :5] = 255, 0, 0
    Image.fromarray(pixels).save(root / "a.png")
    data = {fit: opened(root, caption="x", fit=fit) for fit in ("crop", "pad", "squash")}
    crop, pad, squash = (data[fit][0].image for fit in ("crop", "pad", "squash"))
    assert crop[4, 4].tolist() == [0, 0, 0]
    assert [pad[y, 0].tolist() for y in (0, 4, 7)] == [[255] * 3, [255, 0, 0], [255] * 3]
    assert squash[0, 0].tolist() == squash[7, 0].tolist() == [255, 0, 0]
    assert [data[fit].original(0).cut for fit in data] == [0.5, 0, 0]
    assert len({own.fingerprint() for own in data.values()}) == 3
    assert data["crop"].fingerprint() == opened(root, caption="x").fingerprint()


@pytest.mark.parametrize("ending", ["jfif", "jpe", "mpo", "avif"])
def test_other_endings_are_read(put, ending):
    kind = "AVIF" if ending == "avif" else "JPEG"
    if ending == "avif":
        pytest.importorskip("PIL._avif")
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), "blue").save(buffer, kind)
    root = put(f"a.{ending}", buffer.getvalue())
    assert opened(root, caption="x")[0].image.shape == (8, 8, 3)


def test_parquet_of_the_hub_and_as_a_table(put):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    root = put("README.md", "")
    (root / "data").mkdir()
    contents = [put(f"{n}").joinpath(n).read_bytes() for n in NAMES]
    for number, (first, last, file) in enumerate(
        [(0, 5, "train-00000-of-00002"), (5, 9, "train-00001-of-00002"), (9, 12, "test-00000")]
    ):
        table = {
            "image": [{"bytes": contents[i], "path": NAMES[i]} for i in range(first, last)],
            "prompt": [f"bird {i}" for i in range(first, last)],
        }
        parquet.write_table(
            arrow.table(table), root / "data" / f"{file}.parquet", row_group_size=2 + number
        )
    plain = {e.key: e.image for s in ("train", "val") for e in opened(root, s, caption="x")}
    for n in NAMES:
        (root / n).unlink()
    train, val = (opened(root, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (9, 3)
    assert train.captions(6) == ("bird 6",)
    np.testing.assert_array_equal(train[6].image, plain["6.png"])
    np.testing.assert_array_equal(val[0].image, plain["9.png"])
    (root / "data" / "test-00000.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with pytest.raises(UserError, match="no sound parquet file"):
        opened(root)


def test_parquet_without_its_library_is_told_in_a_line(put, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    root = put("data/train.parquet", b"PAR1")
    with pytest.raises(UserError, match=r"needs pyarrow: pip install 't2i-zoo\[parquet\]'"):
        opened(root)


def test_a_folder_of_images_is_recognised(put, tmp_path):
    (tmp_path / "none").mkdir()
    assert recognise(tmp_path / "none") is None
    assert recognise(put("a/b.png")) == "images (1 .png)"


# --- what was once read wrongly, or not at all ----------------------------------------------------


def pictured(put, names=NAMES):
    for name in names:
        root = put(name)
    return root


OTHERS = {
    "carriage returns in jsonl": (
        "metadata.jsonl", "\r".join(json.dumps({"file_name": n, "text": SAID[n][0]}) for n in NAMES)
    ),
    "ids as numbers and as words": (
        "annotations.json",
        json.dumps({
            "images": [{"id": i, "file_name": n} for i, n in enumerate(NAMES)],
            "annotations": [{"image_id": str(i), "caption": f"bird {i}"} for i in range(12)],
        }),
    ),
}  # fmt: skip


@pytest.mark.parametrize("table", OTHERS)
def test_tables_of_other_programs(put, table):
    pictured(put)
    assert captions(put(*OTHERS[table])) == SAID


def test_quotes_after_backslashes_are_quotes(put):
    pictured(put)
    root = put("captions.csv", "image,caption\n" + many('{n},"a \\"big\\" bird, {i}"\n'))
    assert captions(root)["3.png"] == ('a "big" bird, 3',)


def test_commas_without_a_header_are_text_where_a_space_follows_each(put):
    pictured(put)
    root = put("captions.csv", many("{n},a bird, number {i}\n"))
    assert captions(root)["3.png"] == ("a bird, number 3",)
    root = put("captions.csv", many("{n},a bird,x{i}\n"))  # a third column
    assert captions(root, caption_column="2")["3.png"] == ("a bird",)


def test_what_stands_for_no_value_is_no_caption(put):
    pictured(put)
    words = ["nan", "None", "NULL", "N/A"]
    rows = "".join(f"{n},{(words + ['a bird'] * 8)[i]}\n" for i, n in enumerate(NAMES))
    root = put("metadata.csv", f"file_name,text\n{rows}")
    assert captions(root) == dict.fromkeys(NAMES[4:], ("a bird",))
    (root / "metadata.csv").unlink()
    values = ["NaN", "3", "null", "true", *['"a bird"'] * 8]
    rows = "".join(f'{{"file_name": "{n}", "text": {values[i]}}}\n' for i, n in enumerate(NAMES))
    assert captions(put("metadata.jsonl", rows)) == dict.fromkeys(NAMES[4:], ("a bird",))


def test_no_split_is_held_back_without_a_caption(put):
    root = pictured(put, NAMES[:8])
    alone = by_hash(NAMES[:8], 0.01)["val"]
    for name in NAMES[:8]:
        put(name.replace(".png", ".txt"), "" if name in alone else f"bird {name}")
    assert opened(root, "val", val_share=0.01)[0].captions


def test_images_of_other_splits_and_of_none_are_in_neither(put):
    pictured(put)
    words = ["train"] * 4 + ["val"] * 3 + ["unused", "", "test", "odd", "odd"]
    rows = "".join(f"{n},bird {i},{words[i]}\n" for i, n in enumerate(NAMES))
    root = put("metadata.csv", f"file_name,text,split\n{rows}")
    assert [len(opened(root, split)) for split in ("train", "val")] == [4, 3]
    passed_over = told(opened(root))[1]
    assert passed_over["image of split 'odd'"] == 2
    assert passed_over["image to which column 'split' gives no split"] == 1
    put("metadata.csv", "file_name,text,split\n" + many("{n},bird {i},a\n"))
    assert "column 'split' is not used: of train and val, it has a" in told(opened(root))[0]


def test_an_archive_for_each_split_is_read_whole(put):
    root = put("note.md", "")
    image = io.BytesIO()
    Image.new("RGB", (9, 9)).save(image, "PNG")
    for archive, names in {"train": NAMES[:8], "val": NAMES[8:], "other": ["x.png"]}.items():
        with zipfile.ZipFile(root / f"{archive}.zip", "w") as file:
            for name in names:
                file.writestr(name, image.getvalue())
                file.writestr(name.replace(".png", ".txt"), "a bird")
    assert [len(opened(root, split)) for split in ("train", "val")] == [8, 4]
    found, passed_over = told(opened(root, "val"))
    assert "split: archive val.zip" in found
    assert passed_over["not an image file (.zip)"] == 1


def test_archives_that_cannot_be_used_are_told(put):
    root = put("a.zip", b"PK\3\4" + bytes(99))
    assert recognise(root) == "a zip file"
    with pytest.raises(UserError, match="zip file that is damaged; get it again: 1"):
        opened(root)
    for name in ("a.zip", "b.zip"):
        with zipfile.ZipFile(root / name, "w") as file:
            file.writestr("a.png", b"x")
    assert recognise(root) == "archives of images"
    with pytest.raises(UserError, match="several archives hold images"):
        opened(root)


def test_images_of_unread_kinds_alone_are_recognised_and_told(put):
    root = put("a.heic", b"x")
    assert recognise(root) == "images that are not read (1 .heic)"
    with pytest.raises(UserError, match=r"not read \(\.heic\): 1.*convert images of other kinds"):
        opened(root)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_that_a_table_names_is_no_image_and_blocks_nothing(put):
    root = pictured(put, NAMES[:6])
    os.mkfifo(root / "pipe.png")
    rows = many("{n},bird {i}\n", [*NAMES[:6], "pipe.png"])
    put("metadata.csv", f"file_name,text\n{rows}")
    assert sorted(captions(root)) == NAMES[:6]


def test_a_file_is_no_folder_and_the_remedy_is_told(put):
    root = put("a.zip", b"x")
    with pytest.raises(UserError, match=r"a\.zip is a file; name the folder that it lies in"):
        opened(root / "a.zip")
