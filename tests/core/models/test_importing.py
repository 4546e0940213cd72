"""Runs made of imported weights: complete or absent, drawn from like any other, whatever data sets
are installed."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from t2i.core.engine import resume
from t2i.core.errors import UserError
from t2i.core.io.tensors import load_tensors, save_tensors
from t2i.core.models.building import build
from t2i.core.models.importing import default_preset, import_weights
from t2i.core.models.loading import load
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run, newest_run
from t2i.core.settings.data import AbsentData

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def file(tmp_path):
    """Weights of the toy's preset `paper`, whose data set is not installed."""
    torch.manual_seed(3)
    model = build(resolve_config("toy", preset="paper", data_needed=False))
    save_tensors(tmp_path / "netG.safetensors", model.generator.state_dict())
    return tmp_path / "netG.safetensors"


def test_an_imported_run_is_found_drawn_from_and_says_what_it_was_made_of(file, tmp_path):
    run = import_weights("toy", [file], tmp_path / "runs" / "it", command="t2i import ...")
    assert newest_run("toy", tmp_path / "runs").path == run.path
    summary = run.summary()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert summary["imported"] == [
        {"file": "netG.safetensors", "size": file.stat().st_size, "sha256": digest}
    ]
    assert "steps" not in summary
    model = load(run.path, "cpu")
    parameters = [
        sum(p.numel() for p in m.parameters()) for m in (model.generator, model.text_encoder)
    ]
    assert summary["parameters"] == {"all": sum(parameters), "generator": parameters[0]}
    weights = load_tensors(file, "x")
    assert all(
        torch.equal(tensor, weights[name]) for name, tensor in model.generator.state_dict().items()
    )
    assert model.config.encoder.config.words == (
        "a",
        "image",
        "red",
    )  # which the importer filled in
    assert np.asarray(model.sample(["a red image"])[0]).shape == (8, 8, 3)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["it"]


def test_the_configuration_keeps_a_data_set_that_is_not_installed(file, tmp_path):
    run = import_weights("toy", [file], tmp_path / "it")
    config = run.config()
    assert (config.preset, config.data.name, type(config.data.config)) == (
        "paper",
        "absent-data",
        AbsentData,
    )
    assert config.dump()["data"] == {
        "name": "absent-data",
        "image_size": 8,
        "dir": None,
        "max_broken": 0.01,
        "few_broken": 5,
        "fold": 3,
    }
    document = json.loads(run.config_file.read_text())
    assert document["data_fingerprint"] is None
    assert set(document["origins"]) == {"model", "encoder", "sampler"}
    with pytest.raises(UserError, match="no dataset is named 'absent-data'"):
        resolve_config("toy", preset="paper")  # to train, it would be needed
    said = []
    resume(run.path, reporter=SimpleNamespace(say=said.append, close=lambda: None))
    assert said == [f"{run.path} is complete: nothing to do"]


def test_settings_and_presets_are_the_callers(file, tmp_path):
    with pytest.raises(
        UserError, match=r"netG\.safetensors does not fit the network: hidden\.weight is \(16, 9\)"
    ):
        import_weights("toy", [file], tmp_path / "it", preset="tiny")
    import_weights("toy", [file], tmp_path / "it", preset="tiny", sets=["width=16"])
    assert Run(tmp_path / "it").config().settings.width == 16


def test_the_default_preset_is_the_first_that_could_have_been_released():
    assert default_preset(SimpleNamespace(presets=("tiny", "cub", "coco"))) == "cub"
    assert default_preset(SimpleNamespace(presets=("cifar", "tiny"))) == "cifar"
    assert default_preset(SimpleNamespace(presets=("tiny",))) == "tiny"


def test_what_fails_leaves_nothing(file, tmp_path):
    before = sorted(path.name for path in tmp_path.iterdir())
    out = tmp_path / "it"
    for files, line in {
        (tmp_path / "none",): "none: No such file",
        (tmp_path,): "cannot read",
    }.items():
        with pytest.raises(UserError, match=line):
            import_weights("toy", files, out)
    weights = load_tensors(file, "x")
    wrong = {
        "surplus": torch.ones(1),
        "hidden.weight": torch.ones(1),
        "out.bias": weights["out.bias"],
    }
    save_tensors(file, wrong)
    first_three = r"hidden\.bias is missing; out\.weight is missing; surplus is surplus and 1 more"
    with pytest.raises(UserError, match=first_three):
        import_weights("toy", [file], out)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_is_there_is_never_overwritten(file, tmp_path):
    (tmp_path / "it").mkdir()
    import_weights("toy", [file], tmp_path / "it")  # an empty folder is free
    for out in (tmp_path / "it", file):
        before = sorted(out.rglob("*"))
        with pytest.raises(
            UserError, match=r"is there already, and not empty: choose another --out"
        ):
            import_weights("toy", [file], out)
        assert sorted(out.rglob("*")) == before


def test_a_model_without_weights_names_those_that_have(tmp_path):
    with pytest.raises(
        UserError, match=r"model 'ddim' cannot import weights; those that can: .*\btoy\b"
    ):
        import_weights("ddim", [], tmp_path / "it")
    with pytest.raises(UserError, match=r"no model is named 'tyo'; did you mean 'toy'\?"):
        import_weights("tyo", [], tmp_path / "it")
