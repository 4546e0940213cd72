"""COCO: the official layout, in folders and in zip files, read the same; what is missing is named
with the remedy."""

import json
import pickle
import zipfile

import numpy as np
import pytest

from t2i.core.engine import train
from t2i.core.engine.loader import Loader, Views
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample, SoundDataset, Visit
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset, resolve_config
from t2i.core.settings import Augment

# Out of order, as the official files are; one image without captions.
IMAGES = {"train": [9, 3, 7, 5, 1, 2], "val": [12, 11]}


def annotations(split, year):
    name = "COCO_{}2014_{:012d}.jpg" if year == 2014 else "{1:012d}.jpg"
    images = [{"id": number, "file_name": name.format(split, number)} for number in IMAGES[split]]
    captions = [
        {"id": 10 * number + k, "image_id": number, "caption": f" Image {number},\n caption {k}."}
        for k in (1, 0) for number in IMAGES[split] if number != 5
    ]  # fmt: skip
    return {"info": {}, "images": images, "annotations": captions}


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("T2I_HOME", str(tmp_path / "home"))


@pytest.fixture
def layout(tmp_path, photo):
    """`layout(year, root)` writes the set as folders."""

    def write(year=2017, root=tmp_path / "coco"):
        for split in IMAGES:
            document = annotations(split, year)
            for image in document["images"]:
                photo(root / f"{split}{year}" / image["file_name"], image["id"])
            path = root / "annotations" / f"captions_{split}{year}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(document))
        return root

    return write


def zipped(folders, root, year):
    """The same set as the official archives."""
    root.mkdir()
    for name, inside in {f"train{year}": f"train{year}", f"val{year}": f"val{year}",
                         f"annotations_trainval{year}": "annotations"}.items():  # fmt: skip
        with zipfile.ZipFile(root / f"{name}.zip", "w") as archive:
            for path in sorted((folders / inside).iterdir()):
                archive.write(path, f"{inside}/{path.name}")
    return root


def coco(root, split="train", **settings):
    choice = registry().datasets.choose(
        "coco", {"dir": str(root), "image_size": 8, **settings}, "data set"
    )
    return open_dataset(choice, split)


def test_examples_come_by_id_and_captions_in_one_line_by_theirs(layout):
    data = coco(layout())
    assert [data[i].key for i in range(len(data))] == ["1", "2", "3", "7", "9"]  # 5 has no caption
    assert data.captions(3) == data[3].captions == ("Image 7, caption 0.", "Image 7, caption 1.")
    assert len(coco(layout(), "val")) == 2


@pytest.mark.parametrize("year", [2014, 2017])
def test_archives_are_read_as_folders_are(tmp_path, layout, year):
    folders = layout(year)
    data, archives = coco(folders), coco(zipped(folders, tmp_path / "zips", year))
    for i in range(len(data)):
        np.testing.assert_array_equal(data[i].image, archives[i].image)
        assert (data[i].captions, data[i].key) == (archives[i].captions, archives[i].key)
    assert data.fingerprint() == archives.fingerprint()


def test_every_process_opens_an_archive_for_itself(tmp_path, layout):
    data = coco(zipped(layout(), tmp_path / "zips", 2017))
    first = data[0].image  # the main process has it open before the workers are made
    loader = Loader(Views(data, 0, 8, Augment()), iter([[Visit(0, i % 5)] for i in range(40)]), 2)
    try:
        read = [next(loader).images[0] for _ in range(40)]
    finally:
        loader.close()
    np.testing.assert_array_equal(read[5], first)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(data))[0].image, first)


def test_the_year_is_2014_where_both_are_there(layout):
    root = layout(2017)
    assert coco(root).fingerprint() == coco(root, year=2017).fingerprint()
    layout(2014)
    assert (
        coco(root).fingerprint()
        == coco(root, year=2014).fingerprint()
        != coco(root, year=2017).fingerprint()
    )


def test_captions_need_no_image(layout):
    root = layout()
    for path in (root / "train2017").iterdir():
        path.unlink()
    data = coco(root)
    assert data.captions(0)[0] == "Image 1, caption 0."
    assert "Image 9, caption 1." in set(data.vocabulary())
    with pytest.raises(BrokenExample, match=r"000000000001\.jpg: No such file"):
        data[0]


def test_the_fingerprint_follows_captions_sizes_and_files_but_not_the_place(
    tmp_path, layout, photo
):
    root = layout()
    seen = {coco(root).fingerprint()}
    assert (
        coco(layout(2017, tmp_path / "elsewhere"), cache=True, max_broken=0.5).fingerprint() in seen
    )
    seen.add(coco(root, image_size=16).fingerprint())
    photo(root / "train2017" / "000000000001.jpg", 1, (30, 20))
    seen.add(coco(root).fingerprint())
    path = root / "annotations" / "captions_train2017.json"
    path.write_text(path.read_text().replace("Image 9", "Scene 9"))
    seen.add(coco(root).fingerprint())
    assert len(seen) == 4


def test_what_is_missing_is_named_with_the_command_that_gets_it(tmp_path, layout):
    root = layout()
    with pytest.raises(UserError, match=r"'t2i fetch coco' gets it"):
        open_dataset(registry().datasets.choose("coco", {}, "data set"))
    with pytest.raises(UserError, match=r"gone is no folder; 't2i fetch coco'"):
        coco(tmp_path / "gone")
    with pytest.raises(UserError, match=r"no captions_train2014\.json in .*'t2i fetch coco'"):
        coco(root, year=2014)
    (root / "val2017").rename(root / "aside")
    with pytest.raises(UserError, match=r"neither .*val2017 nor val2017\.zip; 't2i fetch coco'"):
        coco(root, "val")
    (root / "val2017.zip").write_bytes(b"PK no more")
    with pytest.raises(UserError, match=r"val2017\.zip: no sound zip file"):
        coco(root, "val")


def test_it_is_found_where_fetch_puts_it(tmp_path, layout):
    (tmp_path / "home" / "fetched").mkdir(parents=True)
    zipped(layout(2014), tmp_path / "home" / "fetched" / "coco", 2014)
    data = open_dataset(registry().datasets.choose("coco", {}, "data set"), "val")
    assert [data[i].key for i in (0, 1)] == ["11", "12"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "holds no captions"),
        ('{"images": [{"id": 1}], "annotations": []}', "file_name"),
    ],
)
def test_annotations_that_are_none_are_refused(layout, content, message):
    root = layout()
    (root / "annotations" / "captions_train2017.json").write_text(content)
    with pytest.raises(UserError, match=message):
        coco(root)


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "/etc/secret.jpg", "a/../../secret.jpg", "..\\\\secret.jpg", ""]
)
def test_annotations_cannot_name_files_outside(layout, name):
    root = layout()
    document = annotations("train", 2017)
    document["images"][0]["file_name"] = name
    (root / "annotations" / "captions_train2017.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match="no name of a file inside the folder"):
        coco(root)


def test_a_damaged_member_of_an_archive_is_broken_not_the_archive(tmp_path, layout):
    root = zipped(layout(), tmp_path / "zips", 2017)
    path = root / "train2017.zip"
    with zipfile.ZipFile(path) as archive:
        begin = archive.getinfo("train2017/000000000003.jpg").header_offset + 100
    content = bytearray(path.read_bytes())
    content[begin : begin + 20] = bytes(20)
    path.write_bytes(content)
    data = coco(root)
    with pytest.raises(
        BrokenExample, match=r"train2017\.zip:train2017/000000000003\.jpg: cannot be unpacked"
    ):
        data[2]
    assert SoundDataset(coco(root, max_broken=0.5), lambda text: None)[2].key == "7"


def test_it_keeps_its_promises(layout, keeps_its_promises):
    keeps_its_promises("coco", layout())


@pytest.mark.usefixtures("toy")
def test_a_model_trains_on_it_in_the_order_of_any_number_of_workers(tmp_path, layout):
    where = {"name": "coco", "dir": str(layout()), "cache": True}
    runs = []
    for workers in (0, 1):
        config = resolve_config("toy", overrides={"data": where, "workers": workers})
        run = train(config, tmp_path / f"run{workers}", reporter=Silent())
        runs.append((run.model / "generator.safetensors").read_bytes())
    assert runs[0] == runs[1]


@pytest.mark.usefixtures("toy")
def test_a_folder_that_is_not_there_leaves_no_run_behind(tmp_path):
    config = resolve_config("toy", overrides={"data": {"name": "coco", "dir": "gone"}})
    with pytest.raises(UserError, match="t2i fetch coco"):
        train(config, tmp_path / "run", reporter=Silent())
    assert not (tmp_path / "run").exists()
