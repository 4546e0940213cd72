"""Studies of sampled models, and of folders of images that any program made."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from t2i.core.errors import UserError
from t2i.core.models.building import build
from t2i.core.runs.configure import resolve_config
from t2i.web.judge.making import Order, folder_name, make_study, plan
from t2i.web.judge.study import image_path, list_studies, read_study
from t2i.web.site import Limits


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def order(folders=None, models=None, **more):
    return Order(**{"name": "s", "models": models or {}, "folders": folders or {}, **more})


def test_images_of_folders_belong_together_by_caption(folder, tmp_path):
    first = folder("first", ("a cat", "a dog", "a cat"), 0)
    second = folder("second", ("a dog", "a cat", "a bird", "a cat"), 50)
    place = make_study(order({"x": first, "y": second}), tmp_path / "studies", lambda *_: None)
    study = read_study(place)
    assert [item.caption for item in study.items] == ["a cat", "a dog", "a cat"]
    for item, files in zip(study.items, (("0", "1"), ("1", "0"), ("2", "3")), strict=True):
        for model, source, name in zip("xy", (first, second), files, strict=True):
            kept = pixels(image_path(place, study, item.key, model))
            np.testing.assert_array_equal(kept, pixels(source / f"{name}.png"))


def test_images_without_captions_belong_together_by_name(tmp_path):
    for name, endings in (("first", "png png"), ("second", "jpg png")):
        (tmp_path / name).mkdir()
        for stem, ending in zip("ab", endings.split(), strict=True):
            Image.new("RGB", (4, 4)).save(tmp_path / name / f"{stem}.{ending}")
    Image.new("RGB", (4, 4)).save(tmp_path / "first/only-here.png")
    folders = {name: tmp_path / name for name in ("first", "second")}
    found = plan(order(folders))
    assert [{path.name for path in one.files.values()} for one in found] == [
        {"a.png", "a.jpg"}, {"b.png"}
    ]  # fmt: skip
    assert {one.caption for one in found} == {""}
    (tmp_path / "second/captions.csv").write_text("file_name,text\na.jpg,a cat\nb.png,a dog\n")
    assert [one.caption for one in plan(order(folders))] == ["a cat", "a dog"]
    with pytest.raises(UserError, match="no captions for the models"):
        plan(order({"first": tmp_path / "first"}, {"m": "runs/m"}))


def test_nothing_in_common_is_an_error(folder):
    with pytest.raises(UserError, match="no images in common"):
        plan(order({"x": folder("first", ("a",)), "y": folder("second", ("b",))}))


def test_studies_are_bounded(make, tmp_path):
    assert make(limits=Limits(studies=1)).is_dir()
    with pytest.raises(UserError, match="there are 1 studies"):
        make((), folders={}, limits=Limits(studies=1), models={"a": "x", "b": "y"})
    models = {"a": "x", "b": "y"}
    assert len(plan(order(models=models, captions=["c"], each=10, most=10))) == 10
    with pytest.raises(UserError, match="20 images, more than a study has"):
        plan(order(models=models, captions=["c"], each=10, limits=Limits(study_images=19)))


def test_a_study_that_is_cancelled_leaves_nothing(folder, tmp_path):
    def cancel(*_):
        raise KeyError

    with pytest.raises(KeyError):
        make_study(order({"x": folder("x"), "y": folder("y")}), tmp_path / "studies", cancel)
    assert list((tmp_path / "studies").iterdir()) == []


def test_links_that_lead_out_of_a_folder_are_refused(folder, tmp_path):
    folders = {"x": folder("x", ("a cat",)), "y": folder("y", ("a cat",))}
    (folders["x"] / "0.png").rename(tmp_path / "secret.png")
    (folders["x"] / "0.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(UserError, match="leads out of"):
        make_study(order(folders), tmp_path / "studies", lambda *_: None)


def test_many_items_are_chosen_at_random_by_seed():
    captions = [f"caption {n}" for n in range(50)]
    chosen = [
        [one.caption for one in plan(order(captions=captions, most=5, seed=seed))]
        for seed in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1] != chosen[2]
    assert len(set(chosen[0])) == 5


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"models": {"a": "x"}}, "1 models"),
        ({"models": {"a": "x", "b": "y"}}, "give captions"),
        ({"models": {"a": "x", "b": "y"}, "captions": ["c"], "most": 0}, "choose 1 to"),
        ({"models": {"a": "x", "b": "y"}, "captions": ["c" * 5000]}, "at most"),
        ({"models": {"a": "x"}, "folders": {"a": "y"}}, "rename one"),
    ],
)
def test_orders_that_do_not_fit_leave_nothing(tmp_path, wrong, said):
    with pytest.raises(UserError, match=said):
        make_study(order(**wrong), tmp_path / "studies", lambda *_: None)
    assert not (tmp_path / "studies").exists()


@pytest.fixture
def runs(toy, tmp_path):
    """Places of three models: two with the same weights."""
    places = {}
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        torch.manual_seed(seed)
        places[name] = tmp_path / "runs" / name
        build(resolve_config("toy")).save(places[name] / "model")
    return places


def test_models_sample_the_same_captions_with_the_same_noise(runs, tmp_path):
    told = []
    wanted = order(models=runs, captions=["a cat", "a dog", "a cat"], each=2, seed=3, device="cpu")
    place = make_study(wanted, tmp_path / "studies", lambda *step: told.append(step))
    study = read_study(place)
    assert [item.caption for item in study.items] == ["a cat", "a cat", "a dog", "a dog"]
    assert len({item.key for item in study.items}) == 4
    images = {
        model: [pixels(image_path(place, study, item.key, model)) for item in study.items]
        for model in runs
    }
    np.testing.assert_array_equal(images["one"], images["same"])
    assert not np.array_equal(images["one"], images["other"])
    assert not np.array_equal(images["one"][0], images["one"][1])  # another noise
    assert ("other: 4 of 4 images", 12, 12) in told
    assert study.sources["one"]["seed"] == 3


def test_models_may_be_judged_beside_a_folder(runs, folder, tmp_path):
    wanted = order({"real": folder("real", ("a cat", "a cat"))}, {"one": runs["one"]}, device="cpu")
    study = read_study(make_study(wanted, tmp_path / "studies", lambda *_: None))
    assert study.models == ("one", "real")
    assert [item.caption for item in study.items] == ["a cat", "a cat"]


def test_a_model_that_cannot_be_loaded_leaves_nothing(folder, tmp_path):
    wanted = order({"real": folder("real")}, {"gone": tmp_path / "gone"}, device="cpu")
    with pytest.raises(UserError):
        make_study(wanted, tmp_path / "studies", lambda *_: None)
    assert not [*(tmp_path / "studies").glob("*/study.json")]
    assert list_studies(tmp_path / "studies") == []


def test_names_become_folders(make, tmp_path):
    assert folder_name("../../etc/passwd") == "etc-passwd"
    assert folder_name(" .. ") == "study"
    made = [make(("alpha", "beta"), name="My study: 1")]
    folders = {name: tmp_path / "pics" / name for name in ("alpha", "beta")}
    made.append(make((), name="My study: 1", folders=folders))
    assert [place.name for place in made] == ["My-study--1", "My-study--1-2"]
    assert json.loads((made[0] / "study.json").read_text())["models"] == ["alpha", "beta"]
