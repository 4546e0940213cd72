"""A folder of images: where captions come from, how it is split, and the cache of resized
images."""

import json

import numpy as np
import pytest

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset
from t2i.plugins.common.images import cache as image_cache


def folder(root, split="train", **settings):
    choice = registry().datasets.choose(
        "imagefolder", {"dir": str(root), "image_size": 8, **settings}, "data set"
    )
    return open_dataset(choice, split)


def content(data):
    return {data[i].key: data.captions(i) for i in range(len(data))}


@pytest.fixture
def root(tmp_path, photo):
    """train/ with three images, test/ with one."""
    for number, name in enumerate(["train/b.png", "train/a.jpg", "train/deep/c.png", "test/d.png"]):
        photo(tmp_path / "set" / name, number)
    return tmp_path / "set"


def describe(root, **captions):
    """A metadata.jsonl in each split."""
    for split, rows in captions.items():
        lines = [json.dumps({"file_name": name, **row}) for name, row in rows]
        (root / split / "metadata.jsonl").write_text("\n".join(lines) + "\n\n")


TRAIN = [
    ("b.png", {"text": "one"}),
    ("a.jpg", {"text": ["two ", "  three\nlines"]}),
    ("b.png", {"text": "more"}),
]


def test_jsonl_gives_one_or_many_captions_and_chooses_the_images(root):
    describe(root, train=TRAIN, test=[("d.png", {"captions": ["four"]})])
    assert content(folder(root)) == {"a.jpg": ("two", "three lines"), "b.png": ("one", "more")}
    assert content(folder(root, "val")) == {"d.png": ("four",)}


def test_csv_is_read_too_with_a_byte_order_mark_and_odd_letters(root):
    rows = b'\xef\xbb\xbffile_name,text\na.jpg,"a bird, with \xc3\xa9 wings"\ndeep/c.png,\n'
    (root / "train" / "metadata.csv").write_bytes(rows)
    data = folder(root)
    assert data.captions(0) == ("a bird, with é wings",)
    with pytest.raises(BrokenExample, match=r"deep/c\.png: no caption"):
        data[1]


def test_a_text_beside_each_image_gives_a_caption_a_line(root):
    (root / "train" / "a.txt").write_text("first\n\n second \n")
    (root / "train" / "deep" / "c.txt").write_text("third")
    (root / "test" / "d.txt").write_text("fourth")
    data = folder(root, caption="an image")
    assert content(data) == {
        "a.jpg": ("first", "second"),
        "b.png": ("an image",),
        "deep/c.png": ("third",),
    }
    with pytest.raises(BrokenExample, match=r"b\.png: no caption"):
        folder(root).captions(1)


def test_without_a_validation_folder_names_decide(tmp_path, photo):
    for number in range(40):
        photo(tmp_path / f"{number}.png", number, (4, 4))
    train, val = (
        content(folder(tmp_path, split, caption="x", val_share=0.25)) for split in ("train", "val")
    )
    assert len(train) + len(val) == 40
    assert not train.keys() & val.keys()
    assert 4 <= len(val) <= 16
    photo(tmp_path / "new.png", 99, (4, 4))
    assert (
        val.keys() <= content(folder(tmp_path, "val", caption="x", val_share=0.25)).keys()
    )  # nobody moves


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"file_name": "../../secret.png", "text": "x"}', "no name of a file inside the folder"),
        ('{"file_name": "/etc/passwd", "text": "x"}', "no name of a file inside the folder"),
        ('{"file_name": "a\\u0000.png", "text": "x"}', "no name of a file inside the folder"),
        ('{"text": "x"}', "it has no file_name"),
        ('["a.jpg", "x"]', "not an object"),
        ('{"file_name": "a.jpg", ', "not JSON"),
        ('{"file_name": "a.jpg", "text": {"en": 3}}', "neither a text nor a list of texts"),
    ],
)
def test_metadata_that_cannot_be_meant_are_refused_with_their_line(root, line, message):
    (root / "train" / "metadata.jsonl").write_text(
        '{"file_name": "b.png", "text": "fine"}\n' + line + "\n"
    )
    with pytest.raises(UserError, match=rf"metadata\.jsonl, line 2.*{message}"):
        folder(root)


def test_folders_with_nothing_in_them_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no image for 'train'"):
        folder(tmp_path)
    with pytest.raises(UserError, match="say which with --data-dir"):
        open_dataset(registry().datasets.choose("imagefolder", {}, "data set"))


def test_it_keeps_its_promises(root, keeps_its_promises):
    describe(root, train=TRAIN, test=[("d.png", {"text": "four"})])
    keeps_its_promises("imagefolder", root)


# --- the cache of resized images


@pytest.fixture
def cached(root, tmp_path, monkeypatch):
    """`cached(say)` opens the folder with its cache, two images a part; one of the three images is
    torn."""
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(image_cache, "PART", 2 * 8 * 8 * 3)
    (root / "train" / "b.png").write_bytes((root / "train" / "b.png").read_bytes()[:60])

    def make(said=None, **settings):
        data = folder(root, caption="x", cache=True, max_broken=0.5, **settings)
        data.prepare((said if said is not None else []).append)
        return data

    return make


def files(tmp_path):
    return sorted(path for path in (tmp_path / "home" / "pictures").rglob("*") if path.is_file())


def test_the_cache_holds_what_the_files_hold_and_what_is_broken(root, cached):
    plain, data = folder(root, caption="x"), cached()
    torn = str(root / "train" / "b.png")
    for path in root.rglob("*.png"):
        path.unlink()
    (root / "train" / "a.jpg").unlink()
    assert data[0].image.flags.writeable
    with pytest.raises(BrokenExample, match="cannot be read") as caught:
        data[1]
    assert caught.value.where == torn
    assert (data[2].key, data[2].image.shape) == ("deep/c.png", (8, 8, 3))
    with pytest.raises(BrokenExample):
        plain[2]


def test_cached_images_are_equal_to_those_read(root, cached):
    plain, data = folder(root, caption="x"), cached()
    for i in (0, 2):
        np.testing.assert_array_equal(plain[i].image, data[i].image)
    assert plain.fingerprint() == data.fingerprint()


def test_the_cache_is_made_once_and_for_each_size(tmp_path, cached):
    said = []
    cached(said)
    assert [text.split(" ")[0] for text in said] == ["resizing"]
    made = {path: path.stat().st_mtime_ns for path in files(tmp_path) if path.suffix != ".lock"}
    cached(again := [])
    assert again == []
    assert {
        path: path.stat().st_mtime_ns for path in files(tmp_path) if path.suffix != ".lock"
    } == made
    cached(other := [], image_size=16)
    assert len(other) == 1


def test_a_cache_begun_is_completed_and_a_damaged_one_made_anew(tmp_path, cached, monkeypatch):
    whole = cached()
    expected = whole[2].image
    parts = [path for path in files(tmp_path) if path.suffix == ".raw"]
    (manifest,) = (path for path in files(tmp_path) if path.name == "manifest.json")
    manifest.unlink()  # as if it had been killed in the second part
    parts[1].with_suffix(".json").unlink()
    first = parts[0].stat().st_mtime_ns
    said = []
    np.testing.assert_array_equal(cached(said)[2].image, expected)
    assert parts[0].stat().st_mtime_ns == first
    assert len(said) == 1
    parts[1].write_bytes(bytes(8 * 8 * 3))
    np.testing.assert_array_equal(cached(said)[2].image, expected)
    assert "damaged" in said[1]
    assert "anew" in said[1]


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, cached, monkeypatch):
    monkeypatch.setattr(
        image_cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100})
    )
    with pytest.raises(
        UserError, match=r"set T2I_HOME to another folder, or set data\.cache=false"
    ):
        cached()
    assert not [path for path in files(tmp_path) if path.suffix == ".raw"]
