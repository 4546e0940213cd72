"""CUB and Flowers in the layout of the StackGAN line."""

import pickle

import numpy as np
import pytest
from PIL import Image

from t2i.core.errors import UserError
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset, resolve_config
from t2i.plugins.datasets.cub.dataset import _around
from t2i.plugins.datasets.cub.recognise import recognise as cub_recognise
from t2i.plugins.datasets.flowers.recognise import recognise as flowers_recognise

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
            b"caf\xc3\xa9 bird\xe2\x80\xa8here ",
        )
    (official / "images.txt").write_text(
        "".join(f"{number} {name}.jpg\n" for name, number in numbers.items())
    )
    (official / "bounding_boxes.txt").write_text(
        "".join(f"{n} 40.0 30.0 20.0 20.0\n" for n in numbers.values())
    )
    return root


def opened(name, root, part="train", **settings):
    choice = registry().datasets.choose(
        name, {"dir": str(root), "image_size": 8, **settings}, "data set"
    )
    return open_dataset(choice, part)


def test_birds_come_in_the_order_of_the_list_with_class_and_captions(birds):
    data = opened("cub", birds)
    assert [data[i].key for i in (0, 1)] == TRAIN
    assert [data[i].extras for i in (0, 1)] == [{"class_id": 2}, {"class_id": 1}]
    assert data.captions(0) == ("a bird with wings", "café bird here")
    assert [opened("cub", birds, "val")[0].key] == TEST
    found = data.contents().found
    assert [line.partition(":")[0] for line in found[:3]] == ["split", "images", "captions"]
    assert found[3] == "captions that lost letters (U+FFFD in the files, read as spaces): 2"


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


@pytest.mark.parametrize("ending", [".jpg", ".JPG", "\r"])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_names_in_a_list_may_have_an_ending_and_backslashes(birds, ending, slash):
    names = [name.replace("/", slash) + ending for name in TRAIN]
    (birds / "train" / "filenames.pickle").write_bytes(pickle.dumps(names))
    assert opened("cub", birds)[0].key == TRAIN[0]


@pytest.mark.parametrize("content", [b"(lp0\nS'%s'\np1\na.", b"(lp0\nV%s\np1\na."])
def test_lists_of_python_2_whose_line_ends_are_those_of_windows(birds, content):
    content = (content % TRAIN[1].encode()).replace(b"\n", b"\r\n")
    (birds / "train" / "filenames.pickle").write_bytes(content)
    assert [opened("cub", birds)[0].key] == TRAIN[1:]


def test_an_archive_that_was_unpacked_into_its_own_name(birds):
    (birds / "CUB_200_2011").rename(birds / "aside")
    (birds / "CUB_200_2011").mkdir()
    (birds / "aside").rename(birds / "CUB_200_2011" / "CUB_200_2011")
    (birds / "text").rename(birds / "aside")
    (birds / "text").mkdir()
    (birds / "aside").rename(birds / "text" / "text")
    assert opened("cub", birds).captions(1) == ("a bird with wings", "café bird here")


def test_the_papers_split_is_asked_for_and_the_official_one_is_another(birds):
    official = birds / "CUB_200_2011"
    (official / "train_test_split.txt").write_text("1 1\r\n2 0\r\n3 1\r\n")
    for split, keys in {"train": [*TEST, TRAIN[1]], "val": [TRAIN[0]]}.items():
        data = opened("cub", birds, split, split="official")
        assert [data[i].key for i in range(len(data))] == keys
        assert "CUB's own" in data.contents().found[0]
    (birds / "train" / "filenames.pickle").unlink()
    with pytest.raises(UserError, match=r"holds out 50 classes.*set data\.split=official"):
        opened("cub", birds)
    (birds / "train" / "filenames.pickle").write_bytes(pickle.dumps(TRAIN))
    (official / "text").mkdir()
    with pytest.raises(UserError, match=rf"there is one in {birds}: name that folder"):
        opened("cub", official)


def test_captions_of_another_encoding_are_refused_by_name_or_read_as_the_setting_says(birds):
    captions(birds / "text" / f"{TRAIN[1]}.txt", b"caf\xe9 bird \x96 blue")
    with pytest.raises(UserError, match=r"Black_0046\.txt: not UTF-8 .*--set data\.encoding="):
        opened("cub", birds)
    assert opened("cub", birds, encoding="cp1252").captions(1) == ("café bird \u2013 blue",)


def test_folders_are_recognised_by_their_names(birds, tmp_path):
    assert cub_recognise(birds) == "CUB-200-2011 (CUB_200_2011/images)"
    assert cub_recognise(birds / "CUB_200_2011") == "CUB-200-2011 (images)"
    assert cub_recognise(birds / "text") is None
    assert cub_recognise(tmp_path / "gone") is None


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


def test_flowers_say_where_the_split_comes_from_and_are_recognised(flowers):
    assert flowers_recognise(flowers).startswith("Oxford Flowers 102 (jpg/image_0000")
    assert flowers_recognise(flowers / "jpg") is None
    captions(flowers / "text_c10" / "class_00005" / "image_00002.txt", b"\xb0\xd7\xc9\xab\xbb\xa8")
    with pytest.raises(UserError, match=r"image_00002\.txt: not UTF-8"):
        opened("flowers", flowers)
    assert opened("flowers", flowers, encoding="gbk").captions(0) == ("白色花",)
    (flowers / "train" / "filenames.pickle").unlink()
    with pytest.raises(UserError, match=r"preprocessed data of StackGAN, and holds out 20 classes"):
        opened("flowers", flowers)


def test_flowers_keep_their_promises(flowers, keeps_its_promises):
    keeps_its_promises("flowers", flowers)


@pytest.mark.parametrize("model", ["dfgan", "attngan", "stackgan", "galip"])
def test_presets_name_data_sets_that_are_there(model):
    for preset in ("cub", "coco"):
        config = resolve_config(model, preset=preset, overrides={"data": {"dir": "somewhere"}})
        assert (config.data.name, config.data.config.image_size) == (preset, 304)
