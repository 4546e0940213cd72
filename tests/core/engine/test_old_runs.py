"""Runs that earlier versions wrote (`old_runs`) are opened, drawn from and gone on with.

attngan was stopped within DAMSM, whose image encoder was still a part of its generator; ldm within
its autoencoder. Both are runs of nine steps, and `metrics.jsonl` is what the whole run logged. Of
the others there are settings alone.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from t2i.core.engine import checkpoint, resume
from t2i.core.engine.reporting import Silent
from t2i.core.interfaces.noise import seeded
from t2i.core.io.tensors import load_tensors
from t2i.core.models.building import build, stages_of
from t2i.core.models.loading import load, load_model
from t2i.core.models.moved import Moved
from t2i.core.registry.tables import registry
from t2i.core.runs.folder import Run

OLD = Path(__file__).with_name("old_runs")
MODELS = sorted(path.name for path in OLD.iterdir())
STOPPED = {"attngan": 3, "ldm": 2}


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def copy(tmp_path):
    """`copy(model)`: a stopped run, to be gone on with."""

    def make(model):
        shutil.copytree(OLD / model, tmp_path / model)
        for part in ("generator", "text_encoder"):  # empty folders, which git does not keep
            if (tmp_path / model / "model").is_dir():
                (tmp_path / model / "model" / part).mkdir(exist_ok=True)
        return Run(tmp_path / model)

    return make


def test_there_is_one_of_every_model():
    built_in = {
        spec.name
        for spec in registry().models
        if registry().models.origin(spec.name).distribution == "t2i-zoo"
    }
    assert set(MODELS) <= built_in
    assert set(MODELS) >= {"attngan", "ddim", "ddpm", "dfgan", "galip", "ldm", "stackgan"}


@pytest.mark.parametrize("model", MODELS)
def test_settings_are_read_and_describe_the_same_networks(model):
    config = Run(OLD / model).config()
    document = json.loads((OLD / model / "config.json").read_text())["run"]
    assert (config.model, config.settings.steps) == (model, 9)
    assert (config.encoder.name, config.sampler.name) == (
        document["encoder"]["name"],
        document["sampler"]["name"],
    )
    made = build(config)
    assert stages_of(config, made.text_encoder)


@pytest.mark.parametrize("model", STOPPED)
def test_a_stopped_run_goes_on_to_what_it_would_have_been(copy, model):
    run, step = copy(model), STOPPED[model]
    whole = lines(run.metrics_file)
    assert len(whole) == 9
    resume(run.path, reporter=Silent())
    gone_on = lines(run.metrics_file)
    assert [(line["stage"], line["step"]) for line in gone_on] == [
        (line["stage"], line["step"]) for line in whole
    ]
    for ours, theirs in zip(gone_on[step:], whole[step:], strict=True):
        # The same to the bit on the machine that it was begun on.
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-4, abs=1e-4)
        assert ours["learning_rates"] == pytest.approx(theirs["learning_rates"])
    assert run.complete
    assert len(load(run.path, "cpu").sample(["a red circle"], n=2)) == 2


def test_tensors_that_moved_are_found_in_a_checkpoint():
    folder = OLD / "attngan" / "checkpoints" / "step-3"
    moved = Moved.of(registry().models["attngan"].moved)
    saved = checkpoint.read(folder, moved)
    plain = load_tensors(folder / "modules.generator.safetensors", "x")
    encoder = {name for name in plain if name.startswith("image_encoder.")}
    assert encoder
    seeded(1)
    model = build(Run(OLD / "attngan").config())
    saved.modules({"generator": model.generator, "helpers": model.helpers})
    ours = {**model.generator.state_dict(), **model.helpers.state_dict()}
    assert ours.keys() == plain.keys()
    assert all(torch.equal(ours[name], plain[name]) for name in plain)
    averages = saved.averages()
    assert {name.removeprefix("helpers.") for name in averages if name.startswith("helpers.")} == {
        name for name, _ in model.helpers.named_parameters()
    }
    assert not any(name.startswith("generator.image_encoder.") for name in averages)


def test_a_finished_model_is_drawn_from_without_what_only_trained_it(copy):
    run = copy("attngan")
    saved = load_tensors(run.model / "generator.safetensors", "x")
    model = load_model(run.model)
    kept = model.generator.state_dict()
    assert kept.keys() == {name for name in saved if not name.startswith("image_encoder.")}
    assert all(torch.equal(kept[name], saved[name]) for name in kept)
    assert len(model.helpers) == 0
    assert len(model.sample(["a red circle"])) == 1
