"""Images and captions of other programs, as they lie on a disk."""

import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from t2i.benchmarks.score.images.captions import read_captions
from t2i.benchmarks.score.images.sources import open_images
from t2i.core.errors import UserError


def save(path, colour=(10, 20, 30), size=(8, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "made"
    for name in ("b.png", "a.PNG", "c.webp", "deep/d.png"):
        save(place / name)
    (place / "notes.txt").write_text("x")
    (place / ".DS_Store").write_bytes(b"x")
    (place / "._a.png").write_bytes(b"x")
    return place


def test_a_folder_is_read_at_its_top_and_the_rest_is_counted(folder):
    found = open_images(folder, recursive=False)
    assert found.names == ("a.PNG", "b.png", "c.webp")
    assert found.passed_over == {"hidden": 2, "no image (.txt)": 1}
    assert [image.shape for image in found] == [(6, 8, 3)] * 3
    assert open_images(folder, recursive=True).names == ("a.PNG", "b.png", "c.webp", "deep/d.png")


def test_links_that_lead_back_end(folder):
    (folder / "deep" / "again").symlink_to(folder, target_is_directory=True)
    assert len(open_images(folder, recursive=True)) == 4


def test_the_record_of_sampling_names_images_and_captions(folder):
    lines = [{"file": "b.png", "prompt": "a red circle"}, {"file": "gone.png", "prompt": "x"}]
    (folder / "samples.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"file": "a')
    found = open_images(folder, recursive=False)
    assert found.names == ("b.png",)
    assert found.told["b.png"] == "a red circle"
    assert found.passed_over["not listed in samples.jsonl"] == 2
    assert found.passed_over["listed in samples.jsonl, but not there"] == 1


def test_a_zip_is_read_in_all_of_its_folders(folder, tmp_path):
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("b.png", "a.PNG", "deep/d.png"):
            archive.write(folder / name, f"root/{name}")
        archive.writestr("__MACOSX/root/._b.png", b"x")
        archive.writestr("root/readme", b"x")
    found = open_images(path, recursive=False)
    assert found.names == ("root/a.PNG", "root/b.png", "root/deep/d.png")
    assert found.passed_over == {"hidden": 1, "no image (no extension)": 1}
    np.testing.assert_array_equal(next(iter(found)), np.asarray(Image.open(folder / "a.PNG")))


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_an_array_of_images_is_read_row_by_row(tmp_path, write):
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 8, 3)).astype(np.uint8)
    write(tmp_path / "x.npz", images, np.arange(5))  # arr_0 and labels, as guided-diffusion does
    found = open_images(tmp_path / "x.npz", recursive=False)
    np.testing.assert_array_equal(np.stack(list(found)), images)
    np.save(tmp_path / "x.npy", images)
    np.testing.assert_array_equal(np.stack(list(open_images(tmp_path / "x.npy", False))), images)


def test_what_lies_under_transparency_counts_unless_it_is_laid_on_white(tmp_path):
    save(tmp_path / "a.png", (10, 20, 30, 0), mode="RGBA")
    found = open_images(tmp_path, recursive=False)
    assert next(iter(found))[0, 0].tolist() == [10, 20, 30]
    assert sum(found.remarks.values()) == 1
    found = open_images(tmp_path, recursive=False)
    found.white = True
    assert next(iter(found))[0, 0].tolist() == [255, 255, 255]
    assert not found.remarks


def test_what_is_no_set_of_images_is_refused_in_one_line(tmp_path, folder):
    def refused(path, recursive=False):
        with pytest.raises(UserError) as caught:
            list(open_images(path, recursive))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such folder or file" in refused(tmp_path / "nowhere")
    assert "not a single file" in refused(save(tmp_path / "one" / "a.png"))
    above = tmp_path / "above"
    above.mkdir()
    (above / "made").symlink_to(folder)
    assert "but 4 below: name a subfolder (made), or give --recursive" in refused(above)
    (tmp_path / "run" / "model").mkdir(parents=True)
    assert "it is a run; 't2i sample --run" in refused(tmp_path / "run")
    (folder / "b.png").write_bytes(b"torn")
    assert "b.png: cannot be read as an image" in refused(folder)
    (tmp_path / "x.zip").write_bytes(b"PK no zip")
    assert "no sound zip file" in refused(tmp_path / "x.zip")


@pytest.mark.parametrize(
    ("array", "line"),
    [
        (np.zeros((2, 3, 8, 8), np.uint8), "move its axis of colours to the end"),
        (np.zeros((2, 8, 8, 3), np.float32), "float32, 2x8x8x3"),
        (np.zeros((0, 8, 8, 3), np.uint8), "images must be uint8"),
    ],
)
def test_arrays_of_another_layout_are_refused(tmp_path, array, line):
    np.savez(tmp_path / "x.npz", array)
    with pytest.raises(UserError, match=line):
        open_images(tmp_path / "x.npz", recursive=False)


def test_an_array_cannot_ask_for_more_than_the_file_holds(tmp_path):
    np.savez(tmp_path / "x.npz", np.zeros((2, 8, 8, 3), np.uint8))
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        data = archive.read("arr_0.npy").replace(b"(2, 8, 8, 3)", b"(9, 8, 8, 3)")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("arr_0.npy", data)
    with pytest.raises(UserError, match="the file ends too early"):
        list(open_images(tmp_path / "x.npz", recursive=False))
    (tmp_path / "y.npz").write_bytes(b"none")
    with pytest.raises(UserError, match=r"y\.npz: no sound file of arrays"):
        open_images(tmp_path / "y.npz", recursive=False)


NAMES = ("a.png", "deep/b.png")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", "one\ntwo\n\n"),
        ("c.csv", "file_name,text\nb.png,two\na.png,one\n"),
        ("c.csv", 'image,caption\ndeep/b.png,"two"\na.png,one\n'),
        ("c.tsv", "file\tprompt\nb.png\ttwo\na.png\tone\n"),
        (
            "c.jsonl",
            '{"file": "b.png", "prompt": "two"}\n\n{"image": "a.png", "text": ["one"]}',
        ),
        ("c.json", '{"b.png": ["two", "zwei"], "a.png": "one"}'),
        ("c.json", '[{"image": "b.png", "text": "two"}, {"image": "a.png", "text": "one"}]'),
        ("c.csv", "image;caption\nb.png;two\na.png;one\n"),
        ("c.csv", "b.png|two\na.png|one\n"),
        ("c.csv", "id,text\nb,two\na,one\n"),
        ("c.csv", "path,text\nC:\\x\\b.png,two\n/home/me/a.png,one\n"),
        ("c.csv", "file_name,text\na.png,one\na.png,uno\nb.png,two\n"),
        ("c.txt", "b.png\ttwo\na.png\tone\n"),
        ("c.txt", "b.png: two\na.png: one\n"),
        ("c.token", "one\r\ntwo\r\n"),
    ],
)
def test_captions_are_read_from_every_common_table(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_captions(tmp_path / name, NAMES) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("c.txt", "one", "1 lines for 2 images"),
        ("c.txt", "\ntwo", "line 1 is empty"),
        (
            "c.csv",
            "file,text\na.png,one\n",
            "no caption for 1 of 2 images, such as deep/b.png",
        ),
        (
            "c.csv",
            "file,other,words\na.png,x y,one\n",
            "no column of captions, such as text or caption; its columns are file, other, words",
        ),
        ("c.jsonl", "[]", "line 1: not an object"),
        ("c.json", "[1]", "no table: a list of objects, or an object with a caption"),
    ],
)
def test_captions_that_do_not_fit_are_refused_by_name(tmp_path, name, text, line):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=line):
        read_captions(tmp_path / name, NAMES)


def test_a_name_that_may_mean_two_images_is_not_guessed(tmp_path):
    (tmp_path / "c.csv").write_text("file,text\nx/1.png,one\ny/1.png,two\n")
    assert read_captions(tmp_path / "c.csv", ["x/1.png", "y/1.png"]) == ["one", "two"]
    with pytest.raises(UserError, match=r"no caption for 1 of 1 images, such as 1\.png"):
        read_captions(tmp_path / "c.csv", ["1.png"])


@pytest.mark.parametrize("name", ["c.csv", "c.txt"])
def test_captions_in_another_encoding_are_refused_with_a_remedy_that_works(tmp_path, name):
    text = "a.png,un café\nb.png,two\n"
    (tmp_path / name).write_bytes(text.encode("cp1252"))
    with pytest.raises(UserError, match=r"c\.\w+: not UTF-8 .*'.*un café.*'.*save it as UTF-8$"):
        read_captions(tmp_path / name, NAMES)
    (tmp_path / name).write_bytes(text.encode("utf-16"))
    assert read_captions(tmp_path / name, NAMES) == ["un café", "two"]
