"""Options that every GAN has: those of the engine that change how numbers are computed change no
more than the rounding, and the outline loss is added to the generator's loss."""

from __future__ import annotations

import json

import pytest
import torch

from t2i.core.engine import train
from t2i.core.engine.local import LocalEngine
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.trainer import Batch
from t2i.core.models.building import build, stages_of
from t2i.core.runs.configure import resolve_config

GANS = (
    "attngan",
    "biggan",
    "cgan",
    "cvaegan",
    "dfgan",
    "dmgan",
    "galip",
    "gan",
    "gancls",
    "stackgan",
    "stackganv2",
    "stylegan",
    "xmcgan",
)
EAGER = ("dfgan", "dmgan", "galip", "stylegan", "xmcgan")


@pytest.fixture
def losses(small, tmp_path):
    """`losses(model, *settings)`: what the first step of each stage loses, by stage and name."""

    def of(model, *settings):
        sets = small(
            model, "steps=4", "log_every=1", "sample_every=100", "checkpoint_every=100", "warmup=0",
            *settings,
        )  # fmt: skip
        run = train(resolve_config(model, sets=sets), tmp_path / "-".join(("run", *settings)))
        first = {}
        for line in run.metrics_file.read_text().splitlines():
            row = json.loads(line)
            if "losses" in row:
                first.setdefault(row["stage"], row["losses"])
        assert list(first) == [stage["name"] for stage in run.summary()["stages"]]
        return {
            f"{stage}.{name}": value
            for stage, named in first.items()
            for name, value in named.items()
        }

    return of


SHOWN = ("dfgan", "stylegan")
"""GANs of every run of the tests. The options are those of one trainer."""


@pytest.mark.parametrize(
    "model",
    [name if name in SHOWN else pytest.param(name, marks=pytest.mark.slow) for name in GANS],
)
def test_bfloat16_changes_no_more_than_the_rounding_in_either_memory_format(losses, model):
    """`found` counts images of a small batch: one that rounding turns is a quarter."""
    whole = losses(model)
    named = [name for name in whole if not name.endswith("found")]
    for channels_last in ("true", "false"):
        half = losses(model, "precision=bf16", f"channels_last={channels_last}")
        assert half.keys() == whole.keys()
        assert half != whole
        assert [half[n] for n in named] == pytest.approx(
            [whole[n] for n in named], rel=0.1, abs=0.05
        )


@pytest.mark.slow
@pytest.mark.parametrize("model", GANS)
def test_compiled_networks_learn_what_eager_ones_learn(losses, model, capfd):
    """(Slow: compiling.) What is under a double backward pass, or moves spectral norm's vectors in
    several passes, stays eager, and the engine says so. Compiled dropout draws other numbers."""
    without = ("dropout_d=0", "dropout_input=0") if model in ("gan", "cgan") else ()
    eager, compiled = losses(model, *without), losses(model, *without, "compile=true")
    assert compiled == pytest.approx(eager, rel=1e-3, abs=1e-4)
    told = capfd.readouterr()
    assert ("stays eager" in told.out + told.err) == (model in EAGER)


class Recorder(LocalEngine):
    """Trains nothing, and remembers the losses."""

    def __init__(self, trainer, settings):
        super().__init__(trainer, settings, updates=False)
        self.losses = {}

    def update(self, name, loss):
        self.losses[name] = loss.item()


def first_step(config, model, stage):
    """The generator's loss in the first step of a stage, and what the step reports."""
    trainer = stage.trainer(model.networks)
    for module in trainer.modules.values():
        module.train()
    captions = ("a red square", "a blue circle", "a green star", "a white ring")
    images = torch.rand(4, 3, config.settings.image_size, config.settings.image_size) * 2 - 1
    noise = StepNoise(0, 0, 0, 4, 4, torch.device("cpu"))
    batch = Batch(images, captions, captions, noise, model.text_encoder.encode)
    recorder = Recorder(trainer, config.settings)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        reported = trainer.step(batch, recorder)
    return recorder.losses["generator"], {k: v.item() for k, v in reported.items()}


@pytest.mark.parametrize("model", [name for name in GANS if name != "gan"])
def test_the_outline_loss_is_added_with_its_weight(small, model):
    def step(weight):
        torch.manual_seed(0)
        config = resolve_config(model, sets=small(model, f"outline={weight}", "batch_size=4"))
        made = build(config)
        stage = stages_of(config, made.text_encoder)[-1]
        torch.manual_seed(2)
        return first_step(config, made, stage)

    (plain, without), (loss, reported) = step(0), step(3)
    outline = reported.pop("outline")
    assert 0.01 < outline < 2
    assert loss == pytest.approx(plain + 3 * outline)
    assert reported == pytest.approx(without)
