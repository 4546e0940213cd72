"""COCO: the official layout, in folders and in zip files, read the same; what is missing is named
with the remedy."""

import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest

from t2i.core.engine import train
from t2i.core.engine.loader import Loader, Views
from t2i.core.engine.reporting import Silent
from t2i.core.errors import UserError
from t2i.core.interfaces.broken import SoundDataset
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.interfaces.visits import Visit
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset, resolve_config
from t2i.core.settings.model import Augment
from t2i.plugins.datasets.coco.recognise import recognise

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
        path.write_bytes(b"no image")
    data = coco(root)
    assert data.captions(0)[0] == "Image 1, caption 0."
    assert "Image 9, caption 1." in set(data.vocabulary())
    with pytest.raises(BrokenExample, match=r"000000000001\.jpg: "):
        data[0]


def rewritten(root, split="train", **changes):
    """Changes the annotations of a split: `name=function of the list`."""
    path = root / "annotations" / f"captions_{split}2017.json"
    document = json.loads(path.read_text())
    for name, change in changes.items():
        document[name] = change(document[name])
    path.write_text(json.dumps(document))


def left(data):
    return {reason: count for reason, count in data.contents().passed_over.items() if count}


def keys(data):
    return [data[i].key for i in range(len(data))]


def test_half_of_the_photographs_are_used_and_the_others_counted(layout):
    root = layout()
    for number in (3, 9):
        (root / "train2017" / f"{number:012d}.jpg").unlink()
    data = coco(root)
    assert keys(data) == ["1", "2", "7"]
    assert left(data)["photograph that is not there"] == 2
    for path in (root / "train2017").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"none of the 5 images .* is in .*train2017"):
        coco(root)


@pytest.mark.parametrize("nothing", [None, 7, "", " \n", ["a list"], {"a": "document"}])
def test_what_is_no_text_is_no_caption(layout, nothing):
    root = layout()

    def spoil(notes):
        return [
            note | {"caption": nothing if note["id"] in (30, 70, 71) else note["caption"]}
            for note in notes
        ]

    rewritten(root, annotations=spoil)
    data = coco(root)
    assert keys(data) == ["1", "2", "3", "9"]
    assert data.captions(2) == ("Image 3, caption 1.",)
    assert left(data) == {
        "caption without text (null, a number, empty)": 3, "image without a caption": 2,
    }  # fmt: skip


def test_ids_may_be_words_or_digits_in_quotes(layout):
    root = layout()
    words = {9: "nine", 3: "3", 7: 7.0}
    rewritten(
        root,
        images=lambda images: [i | {"id": words.get(i["id"], i["id"])} for i in images],
        annotations=lambda notes: [
            n | {"image_id": words.get(n["image_id"], n["image_id"]), "id": f"n{n['id']}"}
            for n in notes
        ],
    )  # fmt: skip
    assert keys(coco(root)) == ["1", "2", "3", "7", "nine"]
    assert coco(root).captions(4)[0] == "Image 9, caption 0."
    rewritten(root, images=lambda images: [images[0] | {"id": None}])
    with pytest.raises(UserError, match=r"captions_train2017\.json .*an id is None"):
        coco(root)


def test_entries_that_do_not_fit_are_counted(layout):
    root = layout()
    rewritten(
        root,
        images=lambda images: [*images, images[0], images[1] | {"file_name": "other.jpg"}],
        annotations=lambda notes: [*notes, {"id": 1, "image_id": 77, "caption": "of none"}],
    )
    data = coco(root)
    assert keys(data) == ["1", "2", "3", "7", "9"]
    assert left(data) == {
        "image that is listed twice": 1, "image with the id of another": 1,
        "image without a caption": 1, "caption of an image that is not listed": 1,
    }  # fmt: skip


@pytest.mark.parametrize("prefix", ["train2017/", "./", "coco/images/train2017/", "train2017\\"])
def test_file_names_may_have_folders(layout, prefix):
    root = layout()
    before = [coco(root)[i].image for i in range(5)]
    rewritten(
        root, images=lambda images: [i | {"file_name": prefix + i["file_name"]} for i in images]
    )
    np.testing.assert_array_equal([coco(root)[i].image for i in range(5)], before)


def test_an_absent_photograph_is_never_another_of_the_same_name(layout, photo):
    """Of a/1.jpg, ... b/1.jpg is not the photograph, wherever it is."""
    root = layout()
    rewritten(root, images=lambda images: [
        i | {"file_name": f"{'ab'[n % 2]}/{n // 2}.jpg"} for n, i in enumerate(images)
    ])  # fmt: skip
    for place in ("b", "inner/b"):
        shutil.rmtree(root / "train2017")
        photo(root / "train2017" / place / "0.jpg", 3)  # of image 3; image 9 is a/0.jpg
        photo(root / "train2017" / "0.jpg", 5)
        assert keys(coco(root)) == ["3"]


def test_endings_in_capitals_and_urls_instead_of_names(layout):
    root = layout()
    for path in (root / "train2017").iterdir():
        path.rename(path.with_suffix(".JPG"))
    rewritten(root, images=lambda images: [
        {"id": i["id"], "coco_url": f"http://host/train2017/{i['file_name']}"} for i in images
    ])  # fmt: skip
    assert keys(coco(root)) == ["1", "2", "3", "7", "9"]


def test_a_split_may_have_photographs_in_the_folder_of_the_other(layout):
    root = layout()
    (root / "train2017" / "000000000009.jpg").rename(root / "val2017" / "000000000009.jpg")
    rewritten(
        root,
        images=lambda images: [
            i | {"file_name": f"{'val' if i['id'] == 9 else 'train'}2017/{i['file_name']}"}
            for i in images
        ],
    )
    assert keys(coco(root)) == ["1", "2", "3", "7", "9"]


def test_photographs_in_a_folder_within_their_folder_are_found(layout):
    root = layout()
    (root / "train2017").rename(root / "aside")
    (root / "train2017").mkdir()
    (root / "aside").rename(root / "train2017" / "train2017")
    assert keys(coco(root)) == ["1", "2", "3", "7", "9"]


def test_annotations_of_own_names(layout):
    root = layout()
    for split in IMAGES:
        (root / f"{split}2017").rename(root / split)
        (root / "annotations" / f"captions_{split}2017.json").rename(
            root / f"captions_{split}.json"
        )
    assert [keys(coco(root, split)) for split in IMAGES] == [
        ["1", "2", "3", "7", "9"],
        ["11", "12"],
    ]
    (root / "captions_train.json").rename(root / "mine_train.json")
    with pytest.raises(UserError, match=r"no captions_train2014\.json .*only captions_val\.json"):
        coco(root)
    assert len(coco(root, annotations="mine_{split}.json")) == 5
    (root / "captions_val_small.json").write_bytes((root / "captions_val.json").read_bytes())
    with pytest.raises(
        UserError, match=r"several .*\(captions_val\.json, captions_val_small\.json\)"
    ):
        coco(root, "val")
    assert len(coco(root, "val", annotations="captions_val_small.json")) == 2


def test_one_split_alone_can_be_split(layout):
    root = layout()
    (root / "annotations" / "captions_val2017.json").unlink()
    with pytest.raises(UserError, match=r"only captions_train2017\.json; .*data\.val_share=0\.1"):
        coco(root, "val")
    parts = [keys(coco(root, split, val_share=1e-9)) for split in IMAGES]
    assert sorted(parts[0] + parts[1]) == ["1", "2", "3", "7", "9"]
    assert len(parts[1]) == 1
    layout()
    with pytest.raises(UserError, match="both splits are there"):
        coco(root, val_share=0.1)


def karpathy(root, splits, photo):
    """Karpathy's file: an image of each split in `splits`, in folders of two years."""
    images = []
    for number, split in enumerate(splits):
        folder = f"{'train' if split == 'train' else 'val'}2014"
        photo(root / folder / f"{number}.jpg", number)
        sentences = [{"raw": f"Image {number}."}, {"raw": None}]
        images.append({"filepath": folder, "filename": f"{number}.jpg", "cocoid": 100 + number,
                       "split": split, "sentences": sentences})  # fmt: skip
    (root / "dataset_coco.json").write_text(json.dumps({"images": images, "dataset": "coco"}))
    return root


def test_karpathys_splits(tmp_path, photo):
    (tmp_path / "k").mkdir()
    root = karpathy(tmp_path / "k", ["train", "restval", "val", "test", "test"], photo)
    data, val = coco(root), coco(root, "val")
    assert (keys(data), keys(val)) == (["100", "101"], ["102"])
    assert data.captions(1) == ("Image 1.",)
    assert left(data)["image of Karpathy's split 'test'"] == 2
    assert left(data)["caption without text (null, a number, empty)"] == 2
    karpathy(root, ["train", "test"], photo)
    assert keys(coco(root, "val")) == ["101"]
    karpathy(root, ["test", "test"], photo)
    with pytest.raises(UserError, match=r"no image is of split 'train'; its splits: test \(2\)"):
        coco(root)


def test_karpathys_file_of_flickr_finds_its_photographs(tmp_path, photo):
    root = tmp_path / "flickr"
    for number in (1, 2):
        photo(root / "Flicker8k_Dataset" / f"{number}.jpg", number)
    images = [{"filename": f"{n}.jpg", "imgid": n, "split": s, "sentences": [{"raw": f"Image {n}"}]}
              for n, s in ((1, "train"), (2, "val"))]  # fmt: skip
    (root / "dataset_flickr8k.json").write_text(json.dumps({"images": images}))
    assert [keys(coco(root, split)) for split in IMAGES] == [["1.jpg"], ["2.jpg"]]
    assert recognise(root) == "Karpathy's captions (dataset_flickr8k.json)"
    (root / "dataset_flickr8k.json").rename(root / "dataset.json")
    assert keys(coco(root, "val")) == ["2.jpg"]
    assert recognise(root) is None


def test_boxes_are_no_captions(layout):
    root = layout()
    path = root / "annotations" / "captions_train2017.json"
    rewritten(root, annotations=lambda notes: [{"image_id": 1, "id": 1, "bbox": [0, 0, 1, 1]}])
    with pytest.raises(UserError, match=r"has no captions, only bbox, id, image_id"):
        coco(root)
    path.rename(root / "annotations" / "instances_train2017.json")
    (root / "annotations" / "captions_val2017.json").unlink()
    with pytest.raises(UserError, match=r"instances_train2017\.json has boxes, no captions"):
        coco(root)


def test_annotations_in_another_encoding_are_refused_by_name(layout):
    path = layout() / "annotations" / "captions_train2017.json"
    path.write_bytes(path.read_bytes().replace(b"Image 9", b"Caf\xe9 9"))
    with pytest.raises(UserError, match=r"captions_train2017\.json: not UTF-8"):
        coco(path.parent.parent)


def test_folders_are_recognised_by_their_names(tmp_path, layout):
    root = layout()
    assert recognise(root) == "COCO's captions (annotations/captions_train2017.json)"
    assert recognise(root / "train2017") is None
    assert recognise(tmp_path / "gone") is None
    assert recognise(zipped(root, tmp_path / "zips", 2017)) == (
        "COCO's annotations (annotations_trainval2017.zip)"
    )


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
        ('{"images": {"a": 1}, "annotations": []}', "'images' is no list of objects"),
        (
            '{"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": []}',
            r"no image has a caption \(1 x image without a caption\)",
        ),
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
