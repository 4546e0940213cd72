"""Stages: settings of their own, networks that outlive them (helpers), and models without any."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from t2i.core.engine import resume, train
from t2i.core.engine.reporting import Silent
from t2i.core.errors import T2IError, UserError
from t2i.core.interfaces.noise import seeded
from t2i.core.interfaces.trainer import Stage, Trainer
from t2i.core.io.tensors import load_tensors
from t2i.core.models.building import build, stages_of
from t2i.core.models.loading import load
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config
from tests.stopped import stopped_at

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def parts():
    """The module that the toy's import paths lead to."""
    return sys.modules["t2i_toy"]


def lines(run):
    return [json.loads(line) for line in run.metrics_file.read_text().splitlines()]


# --- settings -------------------------------------------------------------------------------------


@pytest.fixture
def staged(parts):
    """`staged(*settings)`: the toy with a stage for each, of three steps each."""
    plain = parts.stages

    def make(*settings):
        def stages(config, encoder):
            (only,) = plain(config, encoder)
            return [replace(only, name=f"stage{i}", settings=own) for i, own in enumerate(settings)]

        parts.stages = stages
        return resolve_config(
            "toy",
            sets=[f"steps={3 * len(settings)}", "log_every=1", "keep=99", "checkpoint_every=100"],
        )

    return make


def test_a_stage_may_have_any_setting_of_the_engine_but_the_whole_runs(tmp_path, staged, parts):
    seen = []
    step = parts.Trainer.step

    def noting(self, batch, engine):
        seen.append((batch.noise.at, len(batch.captions)))
        return step(self, batch, engine)

    parts.Trainer.step = noting
    own = {
        "batch_size": 6,
        "accumulate": 2,
        "warmup": 3,
        "ema_decay": 0.0,
        "log_every": 3,
        "checkpoint_every": 2,
    }
    try:
        run = train(staged({}, own), tmp_path / "run", reporter=Silent())
    finally:
        parts.Trainer.step = step
    assert seen == [(0, 4), (1, 4), (2, 4), *((at, 3) for at in (3, 3, 4, 4, 5, 5))]
    assert [line["step"] for line in lines(run)] == [1, 2, 3, 6]
    assert lines(run)[-1]["learning_rates"]["generator"] == pytest.approx(
        0.01
    )  # the last of three steps of warm-up
    assert run.summary()["images"] == 3 * 4 + 3 * 6
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [
        "step-0",
        "step-3",
        "step-4",
        "step-6",
    ]
    assert (
        load_tensors(run.checkpoints / "step-4" / "ema.safetensors", "x") == {}
    )  # decay 0: the weights themselves


@pytest.mark.parametrize(
    ("own", "error", "message"),
    [
        (
            {"bach_size": 3},
            T2IError,
            "the engine has no setting 'bach_size'; did you mean 'batch_size'",
        ),
        (
            {"width": 3},
            T2IError,
            "the engine has no setting 'width'",
        ),  # the model's own are not the engine's
        ({"steps": 3}, T2IError, "'steps' is a setting of the whole run"),
        ({"seed": 3}, T2IError, "'seed' is a setting of the whole run"),
        (
            {"batch_size": 0},
            UserError,
            "setting 'batch_size' = 0: Input should be greater than or equal to 1",
        ),
        (
            {"batch_size": 5, "accumulate": 2},
            UserError,
            r"batch_size \(5\) must be a multiple of accumulate \(2\)",
        ),
    ],
)
def test_wrong_settings_are_refused_when_the_stages_are_made(tmp_path, staged, own, error, message):
    config = staged({}, own)
    with pytest.raises(error, match=f"^model 'toy', stage 'stage1': {message}") as caught:
        stages_of(config, build(config).text_encoder)
    assert type(caught.value) is error
    with pytest.raises(error, match=message):
        train(config, tmp_path / "run", reporter=Silent())


# --- helpers --------------------------------------------------------------------------------------


class First(Trainer):
    """Trains the helper to tell brightness, on what a frozen generator does not need."""

    def __init__(self, networks):
        self.critic = networks.helpers["critic"]
        self.modules = {"critic": self.critic}
        self.optimizers = {"critic": torch.optim.Adam(self.critic.parameters(), 0.01)}

    def step(self, batch, engine):
        loss = (
            (self.critic(batch.images.flatten(1)).squeeze(1) - batch.images.mean((1, 2, 3)))
            .square()
            .mean()
        )
        engine.update("critic", loss)
        return {"critic": loss}


class Second(Trainer):
    """Trains the generator by what the helper says, which it leaves alone."""

    def __init__(self, networks):
        self.generator, self.critic = networks.generator, networks.helpers["critic"]
        self.modules = {"generator": self.generator}
        self.optimizers = {"generator": torch.optim.Adam(self.generator.parameters(), 0.01)}

    def step(self, batch, engine):
        drawn = self.generator(batch.noise.normal("z", 0, self.generator.noise_shape), batch.text)
        loss = (self.critic(drawn.flatten(1)) - 1).square().mean()
        engine.update("generator", loss)
        return {"generator": loss}


@pytest.fixture
def helped(plug, parts):
    """A model `helped`: the toy with a helper. Returns the arguments with which helpers were asked
    for."""
    asked = []

    def helpers(config, text, fresh):
        asked.append((text, fresh))
        return {"critic": nn.Linear(3 * config.image_size**2, 1)}

    parts.helpers = helpers
    parts.two = lambda config, encoder: [Stage("first", 1.0, First), Stage("second", 1.0, Second)]
    spec = replace(
        registry().models["toy"], name="helped", helpers="t2i_toy:helpers", stages="t2i_toy:two"
    )

    class Plugin:
        @hookimpl
        def t2i_models(self):
            return [spec]

    plug(Plugin(), "helped")
    return asked


SETS = ("steps=8", "checkpoint_every=1", "keep=99", "log_every=1", "ema_decay=0.5")


def test_helpers_are_built_last_and_only_for_training(helped):
    config = resolve_config("helped")
    seeded(3)
    made = build(config)
    text, critic = made.text_encoder.shape, made.helpers["critic"]
    seeded(3)
    bare = build(config, helpers=False)
    assert len(bare.helpers) == 0
    expected = nn.Linear(3 * 8 * 8, 1)  # the next draws of the same stream
    assert torch.equal(critic.weight, expected.weight)
    assert torch.equal(made.generator.out.weight, bare.generator.out.weight)
    assert made.networks.helpers == {"critic": critic}
    assert helped == [(text, True)]


def test_helpers_outlive_their_stage_and_are_not_saved_with_what_is_sampled(tmp_path, helped):
    run = train(resolve_config("helped", sets=SETS), tmp_path / "run", reporter=Silent())
    steps = [
        load_tensors(run.checkpoints / f"step-{n}" / "modules.helpers.safetensors", "x")
        for n in range(9)
    ]
    assert set(steps[0]) == {"critic.weight", "critic.bias"}
    assert not any(
        torch.equal(steps[n]["critic.weight"], steps[n + 1]["critic.weight"]) for n in range(3)
    )
    assert all(
        torch.equal(steps[4]["critic.weight"], later["critic.weight"]) for later in steps[5:]
    )  # left alone
    averages = load_tensors(run.checkpoints / "step-3" / "ema.safetensors", "x")
    assert set(averages) == {"helpers.critic.weight", "helpers.critic.bias"}
    assert not list(
        (run.checkpoints / "step-3").glob("modules.critic.*")
    )  # once, among the helpers
    model = load(run.path, "cpu")
    assert len(model.helpers) == 0
    assert {path.name for path in run.model.glob("*.safetensors")} == {
        "generator.safetensors",
        "text_encoder.safetensors",
    }
    counted = run.summary()["parameters"]
    generator, critic = sum(p.numel() for p in model.generator.parameters()), 3 * 8 * 8 + 1
    encoder = sum(p.numel() for p in model.text_encoder.parameters())
    assert counted == {
        "all": generator + encoder + critic,
        "trained": generator + critic,
        "generator": generator,
    }


@pytest.mark.parametrize("step", [2, 4, 6])
def test_helpers_are_resumed_within_their_stage_between_and_after(tmp_path, helped, step):
    whole = train(resolve_config("helped", sets=SETS), tmp_path / "run", reporter=Silent())
    part = stopped_at(whole, step, tmp_path / "part")
    torch.manual_seed(step)
    resume(part.path, reporter=Silent())
    for name in ("modules.helpers", "modules.generator"):
        ours, theirs = (
            load_tensors(run.checkpoints / "step-8" / f"{name}.safetensors", "x")
            for run in (part, whole)
        )
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert [line["losses"] for line in lines(part)] == [line["losses"] for line in lines(whole)]
    assert [fresh for _, fresh in helped] == [
        True,
        False,
    ]  # weights of files are not asked for again


def test_a_trainers_own_network_may_not_have_the_name_of_a_part(tmp_path, parts):
    plain = parts.stages

    def made(networks):
        (stage,) = plain(resolve_config("toy").settings, networks.text_encoder)
        trainer = stage.trainer(networks)
        trainer.modules["generator"] = nn.Linear(1, 1)
        return trainer

    parts.stages = lambda config, encoder: [
        replace(stage, trainer=made) for stage in plain(config, encoder)
    ]
    with pytest.raises(
        T2IError, match=r"ToyTrainer\.modules: 'generator' is a part of the model: rename it"
    ):
        train(resolve_config("toy"), tmp_path / "run", reporter=Silent())


# --- no stages ------------------------------------------------------------------------------------


def test_a_model_without_stages_is_complete_at_once(tmp_path, parts):
    parts.stages = lambda config, encoder: []
    run = train(resolve_config("toy"), tmp_path / "run", reporter=Silent())
    assert run.complete
    assert (run.summary()["steps"], run.summary()["stages"]) == (0, [])
    assert load(run.path, "cpu").sample(["a red image"])
    run.summary_file.unlink()  # killed before the last file
    assert resume(run.path, reporter=Silent()).complete
    assert load(run.path, "cpu").sample(["a red image"])
