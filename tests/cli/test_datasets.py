"""`t2i datasets`: the list, and a set read through."""

import json

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def images(tmp_path):
    """Four training images, two of them one file, one grey; one validation image, which train has
    too."""
    root = tmp_path / "pictures"
    for split, number, name in [
        ("train", 1, "a"),
        ("train", 2, "b"),
        ("train", 1, "c"),
        ("val", 2, "d"),
    ]:
        (root / split).mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(number).integers(
            0, 256, (10, 12 + 8 * (number == 2), 3), np.uint8
        )
        Image.fromarray(image).convert("L" if number == 2 else "RGB").save(
            root / split / f"{name}.png"
        )
        (root / split / f"{name}.txt").write_text(f"A small {name}.\n?!\n")
    return root


def test_the_list_is_what_it_was(here):
    code, out, _ = here("datasets", "--json")
    assert code == 0
    assert {"coco", "cub", "flowers", "imagefolder", "shapes"} <= {
        row["name"] for row in json.loads(out)
    }
    assert here("datasets")[1] == here("datasets", "list")[1]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_set_is_described_as_json(here, images, workers):
    code, out, _ = here(
        "datasets", "check", "imagefolder", "--data-dir", images, "--workers", workers, "--json"
    )
    report = json.loads(out)
    train = report["splits"]["train"]
    assert code == 0
    assert report["problems"] == train["broken"] == []
    assert (train["examples"], train["width"], train["height"]) == (3, [12, 12, 20], [10, 10, 10])
    assert train["modes"] == {"RGB": 2, "L": 1}
    assert train["captions"] == {
        "count": 6, "different": 4, "per_example": [2, 2, 2], "words": [0, 1.5, 3], "vocabulary": 4,
        "empty": 3,
    }  # fmt: skip
    assert train["duplicates"] == [["a.png", "c.png"]]
    assert report["shared"] == [{"splits": ["train", "val"], "pictures": [["b.png", "d.png"]]}]


def test_a_set_is_described_in_words(here, images):
    code, out, _ = here(
        "datasets", "check", "imagefolder", "--data-dir", images, "--image-size", 16
    )
    assert code == 0
    for line in (
        "train: 3 examples, 0 broken", "width 12 / 12 / 20, height 10; modes: RGB 2, L 1",
        "2 an example",
        "a.png, c.png", "in both train and val: 1 images", "b.png is d.png",
    ):  # fmt: skip
        assert line in out


def test_what_is_broken_is_listed_and_too_much_is_an_error(here, images):
    torn = images / "train" / "b.png"
    torn.write_bytes(torn.read_bytes()[:50])
    command = ("datasets", "check", "imagefolder", "--data-dir", images)
    code, out, err = here(*command, "--set", "few_broken=0")
    assert code == 2
    assert f"broken: {torn}: an image that cannot be read" in out
    assert err.splitlines()[-1] == (
        "error: data set 'imagefolder' cannot be used as it is: split 'train': 1 of 3 examples are "
        "broken, more than max_broken = 0.01 allows"
    )
    code, out, err = here(*command, "--json")
    assert code == 0
    assert [entry["file"] for entry in json.loads(out)["splits"]["train"]["broken"]] == [str(torn)]


def test_a_folder_may_stand_for_the_data_set_and_what_was_passed_over_is_told(here, images):
    (images / "train" / "._a.png").write_bytes(b"\0")
    (images / "spare").mkdir()
    (images / "train" / "b.png").rename(images / "spare" / "b.png")
    code, out, err = here("datasets", "check", images, "--set", "data.fit=crop")
    assert code == 0
    assert "data set: imagefolder, for images (4 .png)" in err
    for line in (
        "captions: 2 .txt files beside the images", "split: folder val/",
        "passed over: a Mac's notes on a file (._NAME): 1",
        "passed over: image in spare/, which is no folder of a split: 1",
        "cropped: 17% of each image (median); --set fit=pad keeps the whole image",
        f"t2i train --model M --data imagefolder --data-dir {images} --set data.fit=crop",
    ):  # fmt: skip
        assert line in out
    code, out, _ = here("datasets", "check", "--data-dir", images, "--set", "fit=pad", "--json")
    train = json.loads(out)["splits"]["train"]
    assert (train["cut"], train["passed_over"]["a Mac's notes on a file (._NAME)"]) == ([0] * 3, 1)


def test_a_folder_without_captions_is_told_once(refused, images):
    for path in images.rglob("*.txt"):
        path.unlink()
    (images / "names.csv").write_text("a;b\nx;y\n")
    line = refused("datasets", "check", images / "train")
    assert line.count("no caption for the 3 images") == 1
    assert "wanted: a.txt beside a.jpg" in line


def test_folders_that_are_no_data_set_are_told_in_a_line(refused, tmp_path, images):
    (tmp_path / "empty").mkdir()
    assert "no data set recognises what is in it" in refused("datasets", "check", "empty")
    assert "say what to check" in refused("datasets", "check")
    assert "two folders" in refused("datasets", "check", images, "--data-dir", "empty")
    assert "shapes' reads no folder" in refused("datasets", "check", "shapes", "--data-dir", images)
    assert "no/such is no folder" in refused("datasets", "check", "no/such")


def test_a_split_that_cannot_be_opened_is_an_error_and_hides_no_other(here, images):
    (images / "val" / "metadata.jsonl").write_text("{}")
    code, out, err = here("datasets", "check", "imagefolder", "--data-dir", images)
    assert code == 2
    assert "train: 3 examples, 0 broken" in out
    assert "split 'val'" in err
    assert "it has no file_name" in err


def test_sets_without_files_are_read_too(here):
    settings = [part for name in ("train", "val") for part in ("--set", f"{name}_length=40")]
    code, out, _ = here("datasets", "check", "shapes", *settings, "--json")
    assert code == 0
    assert json.loads(out)["splits"]["train"]["examples"] == 40


def test_mistakes_are_told_in_a_line(refused):
    assert "no dataset is named 'imagefoldr'; did you mean 'imagefolder'?" in refused(
        "datasets", "check", "imagefoldr"
    )
    assert "no setting is named 'croop'" in refused("datasets", "check", "cub", "--set", "croop=1")
    assert "no command is named 'chek'" in refused("datasets", "chek")
