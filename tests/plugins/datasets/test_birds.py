"""CUB and Flowers in the layout of the StackGAN line."""

import pickle

import numpy as np
import pytest
from PIL import Image

from t2i.core.errors import UserError
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset, resolve_config
from t2i.plugins.datasets.cub.dataset import _around

TRAIN = ["002.Laysan_Albatross/Laysan_0002", "001.Black_footed_Albatross/Black_0046"]
TEST = ["017.Cardinal/Cardinal_0001"]


def lists(root, train, test):
    """filenames.pickle as Python 2 wrote it."""
    for split, names in {"train": train, "test": test}.items():
        (root / split).mkdir(parents=True)
        (root / split / "filenames.pickle").write_bytes(pickle.dumps(names, protocol=0))


def captions(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines))


@pytest.fixture
def birds(tmp_path):
    """Grey images of 100 x 80 pixels, the bird a red square at 40..60 x 30..50."""
    root = tmp_path / "birds"
    official = root / "CUB_200_2011"
    lists(root, TRAIN, TEST)
    numbers = {name: number for number, name in enumerate([*TEST, *TRAIN], 1)}
    for name in numbers:
        image = Image.new("RGB", (100, 80), (90, 90, 90))
        image.paste((255, 0, 0), (40, 30, 60, 50))
        path = official / "images" / f"{name}.jpg"
        path.parent.mkdir(parents=True)
        image.save(path, quality=95)
        captions(
            root / "text" / f"{name}.txt",
            b"a bird \xef\xbf\xbd\xef\xbf\xbd with wings",
            b"",
            b"caf\xe9 bird ",
        )
    (official / "images.txt").write_text(
        "".join(f"{number} {name}.jpg\n" for name, number in numbers.items())
    )
    (official / "bounding_boxes.txt").write_text(
        "".join(f"{n} 40.0 30.0 20.0 20.0\n" for n in numbers.values())
    )
    return root


def opened(name, root, split="train", **settings):
    choice = registry().datasets.choose(
        name, {"dir": str(root), "image_size": 8, **settings}, "data set"
    )
    return open_dataset(choice, split)


def test_birds_come_in_the_order_of_the_list_with_class_and_captions(birds):
    data = opened("cub", birds)
    assert [data[i].key for i in (0, 1)] == TRAIN
    assert [data[i].extras for i in (0, 1)] == [{"class_id": 2}, {"class_id": 1}]
    assert data.captions(0) == ("a bird with wings", "caf bird")
    assert [opened("cub", birds, "val")[0].key] == TEST


def test_the_bird_is_cut_out_as_stackgan_does():
    """r = int(0.75 max(w, h)) around the centre of the bounding box."""
    assert _around(40, 30, 20, 20) == (35, 25, 65, 55)
    assert _around(60, 27, 325, 304) == (222 - 243, 179 - 243, 222 + 243, 179 + 243)


def test_the_box_is_used(birds):
    """Two thirds of the cut are bird, a fifth of the whole image's height is."""
    cut, whole = (
        opened("cub", birds, image_size=60)[0].image,
        opened("cub", birds, image_size=60, crop=False)[0].image,
    )
    red = [float((image[:, :, 1] < 45).mean()) for image in (cut, whole)]
    np.testing.assert_allclose(red, [(20 / 30) ** 2, (20 / 80) ** 2], atol=0.04)
    assert opened("cub", birds).fingerprint() != opened("cub", birds, crop=False).fingerprint()


def test_a_list_that_asks_for_code_is_refused_unread(birds):
    (birds / "train" / "filenames.pickle").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(UserError, match="not plain lists"):
        opened("cub", birds)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("CUB_200_2011/bounding_boxes.txt", "data.crop=false"),
        ("text", "no folder 'text' with the captions"),
        ("CUB_200_2011/images", "neither CUB_200_2011/images nor images"),
        ("train/filenames.pickle", "filenames.pickle"),
    ],
)
def test_a_missing_part_is_named(birds, gone, message):
    (birds / gone).rename(birds / "aside")
    with pytest.raises(UserError, match=message):
        opened("cub", birds)


def test_names_in_a_list_cannot_leave_the_folder(birds):
    (birds / "train" / "filenames.pickle").write_bytes(
        pickle.dumps(["001.A/../../../secret"], protocol=0)
    )
    with pytest.raises(UserError, match="no name of a file inside the folder"):
        opened("cub", birds)


def test_cub_keeps_its_promises(birds, keeps_its_promises):
    keeps_its_promises("cub", birds)


@pytest.fixture
def flowers(tmp_path, photo):
    root = tmp_path / "flowers"
    lists(root, ["jpg/image_00002", "jpg/image_00001"], ["jpg/image_00003"])
    for number, folder in {1: "class_00077", 2: "class_00005", 3: "class_00020"}.items():
        photo(root / "jpg" / f"image_{number:05d}.jpg", number)
        captions(
            root / "text_c10" / folder / f"image_{number:05d}.txt", b"flower %d" % number, b"petals"
        )
    return root


def test_flowers_find_class_and_captions_by_name(flowers):
    data = opened("flowers", flowers)
    assert [(data[i].key, data[i].extras["class_id"], data[i].captions[0]) for i in (0, 1)] == [
        ("image_00002", 5, "flower 2"),
        ("image_00001", 77, "flower 1"),
    ]
    (flowers / "text_c10" / "class_00005" / "image_00002.txt").unlink()
    with pytest.raises(UserError, match=r"no captions image_00002\.txt"):
        opened("flowers", flowers)


def test_flowers_keep_their_promises(flowers, keeps_its_promises):
    keeps_its_promises("flowers", flowers)


@pytest.mark.parametrize("model", ["dfgan", "attngan", "stackgan", "galip"])
def test_presets_name_data_sets_that_are_there(model):
    for preset in ("cub", "coco"):
        config = resolve_config(model, preset=preset, overrides={"data": {"dir": "somewhere"}})
        assert (config.data.name, config.data.config.image_size) == (preset, 304)
