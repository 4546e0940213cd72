"""Tar shards that other programs wrote: names with dots, other endings, other keys, compressed, in
subfolders, in stores of objects. What is clear is read, what is left out is counted, and for the
rest the setting is named."""

import bz2
import gzip
import io
import json
import lzma
import tarfile

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry
from PIL import Image

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset
from t2i.plugins.datasets.webdataset.recognise import recognise


def picture(level=5, kind="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (12, 12), (level, 0, 255 - level)).save(buffer, kind)
    return buffer.getvalue()


def packed(members):
    """A tar of (name, bytes or text; None for an image)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for name, body in members:
            body = picture() if body is None else body.encode() if isinstance(body, str) else body
            info = tarfile.TarInfo(name)
            info.size = len(body)
            file.addfile(info, io.BytesIO(body))
    return buffer.getvalue()


def pairs(*keys, image=".png", caption=".txt"):
    members = [((f"{key}{image}", None), (f"{key}{caption}", f"of {key}")) for key in keys]
    return [member for pair in members for member in pair]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "set"
    path.mkdir()
    return path


def opened(folder, split="train", **settings):
    own = {} if folder is None else {"dir": str(folder)}
    choice = registry().datasets.choose(
        "webdataset", {"image_size": 8, **own, **settings}, "data set"
    )
    return open_dataset(choice, split)


def captions(folder, **settings):
    """The captions of all examples of both splits, by the key within the shard."""
    found = {}
    for split in ("train", "val"):
        data = opened(folder, split, **settings)
        for i in range(len(data)):
            found[data[i].key.partition("/")[2]] = data.captions(i)
    return found


def left(folder, **settings):
    return dict(opened(folder, **settings).contents().passed_over)


# --- which members belong together ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (pairs("v1.0", "v1.1", "v1.1.b"), ["v1.0", "v1.1", "v1.1.b"]),
        (pairs("0", "1.0", "2"), ["0", "1.0", "2"]),
        (pairs("a", "b", image=".input.png", caption=".output.txt"), ["a", "b"]),
        (pairs("a", "b", image=".PNG", caption=".caption.TXT"), ["a", "b"]),
        (pairs("./a.v2/1", "./a.v2/2"), ["./a.v2/1", "./a.v2/2"]),
        (pairs("img.jpg", "b.jpg", image=".png"), ["img.jpg", "b.jpg"]),
        (pairs("2024-01-01T10.30.05", "2024-01-01T10.30.06"), None),
    ],
)
def test_names_are_split_where_image_and_caption_meet(folder, members, expected):
    (folder / "0.tar").write_bytes(packed(members))
    keys = expected or ["2024-01-01T10.30.05", "2024-01-01T10.30.06"]
    assert captions(folder) == {key: (f"of {key}",) for key in keys}
    assert left(folder) == {}


def test_dotted_keys_that_lack_a_part_are_broken_and_not_joined_with_others(folder):
    members = [*pairs("v1.0", "v1.3", "v1.4"), ("v1.1.png", None), ("v1.2.txt", "alone")]
    (folder / "0.tar").write_bytes(packed(members))
    (folder / "1.tar").write_bytes(packed(pairs("x")))
    data = opened(folder)
    assert len(data) == 5
    told = []
    for i in (3, 4):
        with pytest.raises(BrokenExample) as caught:
            data[i]
        told.append(str(caught.value).partition("tar:")[2])
    assert told == ["v1.1: no caption", "v1.2: no image"]


def test_members_that_no_example_has_are_counted(folder):
    members = [
        *pairs("a", "b"), ("a.mask.png", None), ("b.mask.png", None), ("a.tags.txt", "one, two"),
        ("a.cls", "3"), ("b.npy", b"1"), ("README", "words"), ("._a.png", b"\0\5"),
        ("__MACOSX/a.png", b"\0"), (".DS_Store", b"\0"), ("b.txt", "twice"),
    ]  # fmt: skip
    (folder / "0.tar").write_bytes(packed(members))
    assert captions(folder) == {"a": ("of a",), "b": ("of b",)}
    assert left(folder) == {
        "one more image of an example (.png)": 2,
        "one more caption of an example (.txt)": 2,
        "neither an image nor a caption (.cls)": 1,
        "neither an image nor a caption (.npy)": 1,
        "neither an image nor a caption (no ending)": 1,
        "hidden file of macOS or another system": 3,
    }


def test_members_of_dotted_keys_that_no_example_has_are_counted(folder):
    (folder / "0.tar").write_bytes(packed([*pairs("v1.0", "v1.1"), ("v1.0.mask.png", None)]))
    assert len(captions(folder)) == 2
    assert left(folder) == {"one more image of an example (.png)": 1}


@pytest.mark.parametrize(
    ("members", "said", "settings", "caption"),
    [
        (pairs("a", "b", image=".img", caption=".cap"),
         r"no image and no caption was found; endings found: \.img \(2\), \.cap \(2\); say which "
         r"with --set data\.image=ENDING --set data\.caption=ENDING",
         {"image": "img", "caption": ".cap"}, "of a"),
        (pairs("a", "b", caption=".cls"), r"no caption was found; .*\.cls \(2\)",
         {"caption": "cls"}, "of a"),
        ([*pairs("a", "b", image=".input.png"), ("a.target.png", None), ("b.target.png", None)],
         r"several members of an example could be the image; .*\.input\.png \(2\)",
         {"image": "input.png"}, "of a"),
        ([*pairs("a", "b", caption=".short.txt"), ("a.long.txt", "longer"), ("b.long.txt", "b")],
         r"several .* the caption; .*--set data\.caption=ENDING$",
         {"caption": "LONG.txt"}, "longer"),
        ([*pairs("a", "b", caption=".cap"), ("a.meta.json", '{"text": "in json"}')],
         r"", {"caption": "*.meta.json"}, "in json"),
    ],
)  # fmt: skip
def test_what_is_not_clear_is_told_with_endings_and_settings(
    folder, members, said, settings, caption
):
    (folder / "0.tar").write_bytes(packed(members))
    (folder / "1.tar").write_bytes(packed(members))
    if said:
        with pytest.raises(UserError, match=said) as caught:
            opened(folder)
        assert "\n" not in str(caught.value)
    assert opened(folder, **settings).captions(0) == (caption,)


def test_settings_of_endings_are_in_the_fingerprint_and_the_defaults_are_not(folder):
    (folder / "0.tar").write_bytes(packed(pairs("a", "b", "c")))
    (folder / "1.tar").write_bytes(packed(pairs("a")))
    plain = opened(folder).fingerprint()
    assert plain == opened(folder, image=(), caption="", max_broken=0.5).fingerprint()
    others = [{"image": "png"}, {"caption": "txt"}, {"encoding": "latin-1"}, {"fit": "pad"}]
    assert len({plain, *(opened(folder, **own).fingerprint() for own in others)}) == 5


# --- captions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["caption", "text", "TEXT", "prompt", "Title", "description"])
def test_known_keys_are_found(folder, key):
    members = [(n, None if n.endswith("png") else json.dumps({"width": 12, key: f"of {n[0]}"}))
               for k in "abc" for n in (f"{k}.png", f"{k}.json")]  # fmt: skip
    (folder / "0.tar").write_bytes(packed(members))
    assert captions(folder) == {k: (f"of {k}",) for k in "abc"}
    assert opened(folder).contents().found[2] == f"captions: key '{key}' of .json"


def test_another_key_is_named_by_a_setting_and_the_error_lists_keys(folder):
    document = json.dumps({"url": "x", "blip": {"long": "a house"}, "width": 3})
    (folder / "0.tar").write_bytes(packed([*pairs("b"), ("a.png", None), ("a.json", document)]))
    (folder / "1.tar").write_bytes(packed(pairs("x")))
    with pytest.raises(
        BrokenExample, match=r"no known key; its keys: url, blip.long, width; name one"
    ):
        opened(folder)[1]
    (folder / "1.tar").unlink()
    (folder / "0.tar").write_bytes(packed([("a.png", None), ("a.json", document)]))
    with pytest.raises(
        UserError, match=r"none of the first 1 examples is sound: .*its keys: url, "
    ):
        opened(folder)
    assert opened(folder, caption_key="blip.long").captions(0) == ("a house",)
    with pytest.raises(UserError, match=r"its \.json has no nothing; its keys: url"):
        opened(folder, caption_key="nothing")


def test_a_key_that_is_named_wins_over_the_text(folder):
    document = json.dumps({"caption": "one", "recaption": ["two", "three", None, 4]})
    (folder / "0.tar").write_bytes(packed([*pairs("a"), ("a.json", document)]))
    assert opened(folder).captions(0) == ("of a",)
    assert opened(folder, caption_key="recaption").captions(0) == ("two", "three")


def test_texts_of_other_encodings_are_broken_by_name_or_read_as_the_setting_says(folder):
    members = [("a.png", None), ("a.txt", "café".encode("cp1252")), ("b.png", None),
               ("b.json", json.dumps({"text": "größe"}, ensure_ascii=False).encode("cp1252")),
               ("c.png", None), ("c.txt", "\ufeffwith a mark".encode())]  # fmt: skip
    (folder / "0.tar").write_bytes(packed(members))
    (folder / "1.tar").write_bytes(packed(pairs("x")))
    data = opened(folder)
    for i, key in enumerate("ab"):
        with pytest.raises(BrokenExample, match=rf"0\.tar:{key}: not UTF-8 .*data\.encoding="):
            data[i]
    assert data.captions(2) == ("with a mark",)
    told = opened(folder, encoding="cp1252")
    assert [told.captions(i) for i in range(3)] == [("café",), ("größe",), ("with a mark",)]
    with pytest.raises(UserError, match=r"data\.encoding = nope: Python knows no such encoding"):
        opened(folder, encoding="nope")


# --- which shards ---------------------------------------------------------------------------------


def keys(data):
    return [data[i].key for i in range(len(data))]


@pytest.mark.parametrize(
    ("name", "pack"),
    [("0.tar", gzip.compress), ("0.tar.gz", gzip.compress), ("0.TGZ", gzip.compress),
     ("0.tar.bz2", bz2.compress), ("0.tar.xz", lzma.compress)],
)  # fmt: skip
def test_compressed_shards_are_unpacked_once(folder, name, pack):
    (folder / name).write_bytes(pack(packed(pairs("a", "b"))))
    with pytest.raises(UserError, match=r"larger than the cache .*raise data\.cache_gb"):
        opened(folder, cache_gb=1e-9)
    assert captions(folder) == {"a": ("of a",), "b": ("of b",)}
    assert keys(opened(folder / name))[0].startswith("0/")


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_shard_that_is_cut_keeps_what_came_before(folder, pack):
    members = [(f"{i}.png", picture(i)) if not k else (f"{i}.txt", f"of {i}")
               for i in range(100) for k in (0, 1)]  # fmt: skip
    content = pack(packed(members))
    (folder / "0.tar").write_bytes(content[: len(content) * 2 // 3])
    (folder / "1.tar").write_bytes(packed(pairs("x")))
    if pack is not bz2.compress:
        data = opened(folder)
        assert 30 < len(data) < 100
        assert data.captions(7) == ("of 7",)
        assert sum(left(folder).values()) in (0, 1)
    else:  # its blocks are larger than this file: nothing came before
        with pytest.raises(UserError, match=r"0\.tar is compressed, and cut off or damaged"):
            opened(folder)


def test_a_tar_that_ends_between_two_members_is_counted(folder):
    (folder / "0.tar").write_bytes(packed(pairs("a", "b"))[: 4 * 1024])
    (folder / "1.tar").write_bytes(packed(pairs("x")))
    assert len(opened(folder)) == 2
    assert left(folder) == {"tar without an end, which may be cut off": 1}
    assert left(folder, val_shards=0) == {"tar without an end, which may be cut off": 1}


def test_what_is_compressed_by_zstd_is_told(folder):
    (folder / "0.tar").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(UserError, match="unpack it with 'zstd -d'"):
        opened(folder)


def test_empty_and_hidden_shards_are_counted(folder):
    for name in ("00000.tar", "00003.tar"):
        (folder / name).touch()
    for name in ("00001.tar", "00002.tar"):
        (folder / name).write_bytes(packed(pairs(name[:5])))
    (folder / "._00001.tar").write_bytes(b"\0\5\x16\7")
    assert keys(opened(folder)) == ["00001/00001"]
    assert keys(opened(folder, "val")) == ["00002/00002"]
    assert left(folder) == {"shard without a byte": 2, "hidden file": 1}
    for name in ("00001.tar", "00002.tar"):
        (folder / name).write_bytes(b"")
    with pytest.raises(UserError, match="no shard has any content"):
        opened(folder)


def test_shards_in_subfolders_have_keys_of_their_own(folder):
    for part in ("part-0", "part-1"):
        (folder / part).mkdir()
        (folder / part / "00000.tar").write_bytes(packed(pairs("a")))
    assert keys(opened(folder)) + keys(opened(folder, "val")) == [
        "part-0/00000/a", "part-1/00000/a",
    ]  # fmt: skip
    (folder / "00000.tar").write_bytes(packed(pairs("a", "b")))
    assert keys(opened(folder, val_share=1e-9))[0].startswith("00000/")
    assert left(folder) == {"shard in a subfolder, beside shards in the folder": 2}


@pytest.mark.parametrize(
    "names", [("train/0.tar", "valid/0.tar"), ("x-train-000.tar", "x-val-000.tar"),
              ("training_0.tar", "test_0.tar"), ("a/train-0.tar", "a/dev-0.tar")],
)  # fmt: skip
def test_shards_that_are_named_by_their_split_are_of_it(folder, names):
    for name, content in zip(names, (pairs("a", "b"), pairs("c", "d")), strict=True):
        for number in "01":
            path = folder / name.replace("0.tar", f"{number}.tar")
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(packed(content))
    ends = [{key[-1] for key in keys(opened(folder, split))} for split in ("train", "val")]
    assert ends == [{"a", "b"}, {"c", "d"}]
    assert {key[-1] for key in keys(opened(folder, val_shards=1))} == set("abcd")


def test_patterns_and_single_shards(folder, tmp_path, monkeypatch):
    for number in range(3):
        (folder / f"{number}.tar").write_bytes(packed(pairs("ab"[number % 2])))
    assert len(opened(folder, shards="*.tar")) == 2
    assert len(opened(None, shards=f"{folder}/[0-9].tar".replace("[0-9]", "?"))) == 2
    monkeypatch.chdir(folder)
    assert len(opened(None, shards=["{0,1}.tar", "2.tar"])) == 2
    assert len(opened(folder / "0.tar")) == 1
    for place, said in [
        ({"shards": "x*.tar"}, r"no file is named x\*\.tar"),
        ({"dir": f"{folder}/*.tar"}, r"give a pattern with --set data\.shards="),
        ({"dir": "https:/host/0.tar"}, r"is a URL, not a folder; .*data\.shards=URL"),
        ({"shards": "https://host/*.tar"}, r"number shards behind URLs"),
        ({"shards": "pipe:aws s3 cp s3://b/0.tar -"}, r"'pipe:' runs a program"),
        ({"shards": "PIPE:cat 0.tar"}, r"'pipe:' runs a program"),
        ({"shards": "ftp://host/0.tar"}, r"http, https, s3, gs and hf, not 'ftp'"),
        ({"shards": "gs://bucket/{0..1}.tar", "val_shards": 3}, r"val_shards = 3 of 2 shards"),
    ]:
        with pytest.raises(UserError, match=said) as caught:
            opened(None, **place)
        assert "\n" not in str(caught.value)
    assert len(opened(None, shards=f"file://{folder}/0.tar")) == 1


def test_no_split_is_empty(folder):
    (folder / "0.tar").write_bytes(packed(pairs("a", "b")))
    for share in (1e-9, 0.999999):
        parts = [keys(opened(folder, split, val_share=share)) for split in ("train", "val")]
        assert sorted(parts[0] + parts[1]) == ["0/a", "0/b"]
        assert len(parts[0]) == len(parts[1]) == 1
    (folder / "0.tar").write_bytes(packed(pairs("a")))
    assert [keys(opened(folder, split)) for split in ("train", "val")] == [["0/a"], ["0/a"]]


# --- stores of objects ----------------------------------------------------------------------------


class Store(MemoryFileSystem):
    """A store of objects in memory."""

    protocol = "gs"

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://"))


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setitem(_registry, "gs", Store)
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    return Store()


def test_stores_of_objects_are_read_through_fsspec(store):
    for number in range(3):
        store.pipe_file(f"/bucket/{number}.tar.gz", gzip.compress(packed(pairs("a", "b"))))
    store.pipe_file("/bucket/0_stats.json", b'{"successes": 2}')
    data = opened(None, shards="gs://bucket/{0..2}.tar.gz")
    assert keys(data) == ["0/a", "0/b", "1/a", "1/b"]
    store.rm("/bucket/0.tar.gz")
    assert data.captions(0) == ("of a",)  # from the cache
    with pytest.raises(UserError, match=r"gs://bucket/9\.tar: there is no such file"):
        opened(None, shards="gs://bucket/9.tar")


def test_a_store_without_its_package_names_the_extra(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "open", missing)
    with pytest.raises(UserError, match=r"needs the package s3fs: pip install 't2i-zoo\[remote\]'"):
        opened(None, shards="s3://bucket/0.tar")


# --- recognising ----------------------------------------------------------------------------------


def test_folders_of_shards_are_recognised_and_others_are_not(folder):
    assert recognise(folder) is None
    (folder / "00000.tar").touch()
    (folder / "00000_stats.json").touch()
    assert recognise(folder) == "a tar shard (00000.tar)"
    assert recognise(folder / "00000.tar") == "a tar shard (00000.tar)"
    (folder / "00001.tar.gz").touch()
    assert recognise(folder) == "2 tar shards (00000.tar, ...)"
    (folder / "images").mkdir()  # what was in the archives
    assert recognise(folder) is None
    (folder / "images" / "00000.tar").touch()
    (folder / "00000.tar").unlink()
    (folder / "00001.tar.gz").unlink()
    assert recognise(folder) == "a tar shard (images/00000.tar)"
    (folder / "b.jpg").touch()
    assert recognise(folder) is None
    assert recognise(folder / "gone") is None


def test_shards_called_eval_are_held_back(folder):
    for name, keys_ in {"eval": ("e",), "train": ("a", "b")}.items():
        (folder / name).mkdir()
        (folder / name / "0.tar").write_bytes(packed(pairs(*keys_)))
    assert [len(opened(folder, split)) for split in ("train", "val")] == [2, 1]


def test_an_image_and_a_caption_of_other_names_and_a_table_are_told(folder):
    (folder / "0.tar").write_bytes(packed([("images/a.png", None), ("texts/a.txt", "of a")]))
    with pytest.raises(UserError, match=r"need one name in one folder, such as a\.jpg and a\.txt"):
        opened(folder)
    (folder / "0.tar").write_bytes(packed([("a.png", None), ("captions.csv", "image,text")]))
    with pytest.raises(UserError, match="a table in a tar is not read: unpack the tar"):
        opened(folder)


def test_zstd_is_recognised_and_refused_with_the_remedy(folder):
    (folder / "0.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(99))
    assert recognise(folder) == "a tar shard (0.tar.zst)"
    with pytest.raises(UserError, match="zstd -d"):
        opened(folder)
