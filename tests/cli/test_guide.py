"""A guide from the outside: a plugin's small classifier of noisy images is trained, resumed, and
steers a model."""

import json
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from t2i.core.engine import train
from t2i.core.errors import UserError
from t2i.core.families.continuous import FlowSchedule
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.guide import GuideGenerator
from t2i.core.families.schedule import DiscreteSchedule, add_noise, like
from t2i.core.interfaces.trainer import Stage, Trainer
from t2i.core.kit.conformance.catalogue import of_kind
from t2i.core.kit.conformance.runner import run_checks
from t2i.core.models.loading import load
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import ModelSpec
from t2i.core.runs.configure import resolve_config
from t2i.core.runs.folder import Run
from t2i.core.settings import ModelConfig, Preset

COLOURS = ("red", "green", "blue")


class JudgeConfig(ModelConfig):
    @classmethod
    def presets(cls):
        small = {
            "steps": 200,
            "batch_size": 10,
            "image_size": 8,
            "checkpoint_every": 50,
            "sample_every": 20,
        }
        return {"tiny": Preset(small, data=("toydata", {}), encoder=("toytext", {}))}


class Judge(GuideGenerator):
    """log p(colour | x_t) by one linear map, under the straight path: another one than the guided
    model's."""

    def __init__(self, config, text, assets=None):
        super().__init__()
        self.image_size, self.noise_shape = (
            config.image_size,
            (3, config.image_size, config.image_size),
        )
        self.schedule = FlowSchedule()
        self.linear = nn.Linear(3, 3)

    def log_likelihood(self, x_t, t, text):
        wanted = torch.tensor(
            [next(i for i, c in enumerate(COLOURS) if c in caption) for caption in text.captions]
        )
        return F.log_softmax(self.linear(x_t.mean((2, 3))), 1)[torch.arange(len(wanted)), wanted]


class Plain(DiffusionGenerator):
    """The exact network for x_0 ~ N(0, I / 4), whatever the text: eps = sigma x_t / (alpha^2 / 4 +
    sigma^2). Nothing is to be trained."""

    def __init__(self, config, text, assets=None):
        super().__init__()
        self.image_size, self.noise_shape = (
            config.image_size,
            (3, config.image_size, config.image_size),
        )
        self.schedule, self.prediction = DiscreteSchedule.named("linear"), "epsilon"

    def forward(self, x_t, t, text):
        alpha, sigma = like(self.schedule.alpha(t), x_t), like(self.schedule.sigma(t), x_t)
        return sigma * x_t / (alpha**2 / 4 + sigma**2)


class JudgeTrainer(Trainer):
    def __init__(self, generator):
        self.generator = generator
        self.modules = {"generator": generator}
        self.optimizers = {"judge": torch.optim.Adam(generator.parameters(), 0.1)}

    def step(self, batch, engine):
        t, eps = (
            batch.noise.uniform("t", 0, ()),
            batch.noise.normal("eps", 0, self.generator.noise_shape),
        )
        x_t = add_noise(self.generator.schedule, batch.images, t, eps)
        loss = -self.generator.log_likelihood(x_t, t, batch.text).mean()
        engine.update("judge", loss)
        return {"cross_entropy": loss}


class JudgePlugin:
    @hookimpl
    def t2i_models(self):
        return [
            ModelSpec(
                name="judge", summary="A guide", config="t2i_judge:Config",
                generator="t2i_judge:generator",
                stages="t2i_judge:stages", family="guide", paper="none", presets=("tiny",),
            ),
            ModelSpec(
                name="plain", summary="Noise", config="t2i_judge:Config",
                generator="t2i_judge:Plain",
                stages="t2i_judge:nothing", family="diffusion", paper="none", presets=("tiny",),
            ),
        ]  # fmt: skip


@pytest.fixture
def judge(toy, plug, monkeypatch):
    module = ModuleType("t2i_judge")
    module.__dict__.update(
        Config=JudgeConfig, generator=Judge, Plain=Plain, nothing=lambda config, encoder: [],
        stages=lambda config,
        encoder: [Stage("judge", 1.0, lambda networks: JudgeTrainer(networks.generator))],
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "t2i_judge", module)
    plug(JudgePlugin(), "judge")


@pytest.fixture
def trained(judge, here, tmp_path):
    """A run of the guide, and one of a diffusion model that does not hear the text."""
    code, _, err = here("train", "--model", "judge", "--out", "judge")
    assert code == 0, err
    sets = ["sampler.steps=10", "sampler.guidance=1"]
    train(resolve_config("plain", sets=sets), tmp_path / "model")
    return tmp_path


def test_a_guide_trains_completes_and_writes_no_grids(trained, here):
    run = Run(trained / "judge")
    assert run.complete
    assert list(run.samples.glob("*.png")) == []
    losses = [
        json.loads(line)["losses"]["cross_entropy"]
        for line in run.metrics_file.read_text().splitlines()
    ]
    assert losses[-1] < 0.9 * losses[0]
    document = json.loads(run.config_file.read_text())["run"]
    assert document["sampler"] == {"name": "none", "steps": None, "guidance": 1.0}
    assert run.config().dump() == document
    assert here("train", "--resume", run.path)[0] == 0
    code, out, _ = here("train", "--model", "judge", "--steps", "2", "--out", "other")
    assert code == 0
    assert "steer another model by it: t2i sample --run OTHER --guide other" in out


def test_the_kit_checks_what_a_guide_does(judge, tmp_path):
    outcomes = {one.check: one for one in run_checks(of_kind("models", "judge"), tmp_path)}
    assert [one for one in outcomes.values() if one.state == "FAILED"] == []
    assert {name for name, one in outcomes.items() if one.state == "ok"} >= {
        "builds",
        "trains",
        "resumes",
    }
    assert outcomes["images"].detail == "it draws no images: its family is 'guide'"


def colour(images):
    return torch.tensor(np.stack(images)).float().mean((1, 2))


def test_it_steers_from_the_command_line_and_from_python(trained, here):
    asked = ["a red image", "a blue image"]
    prompts = [word for caption in asked for word in ("-p", caption)]
    drawn = {}
    for scale in (0, 400):
        more = ("--guide", trained / "judge", "--guide-scale", str(scale)) if scale else ()
        code, out, err = here(
            "sample",
            "--run",
            trained / "model",
            *prompts,
            "-n",
            4,
            *more,
            "--out",
            f"s{scale}",
            "--json",
        )
        assert code == 0, err
        records = json.loads(out)["samples"]
        drawn[scale] = [
            np.asarray(Image.open(trained / f"s{scale}" / record["file"])) for record in records
        ]
        assert records[0]["settings"].get("guide", {}).get("scale") == (scale or None)
    plain, guided = colour(drawn[0]), colour(drawn[400])
    assert (guided - plain)[:4, 0].min() > 3  # redder, each of them, and the others bluer
    assert (guided - plain)[4:, 2].min() > 3
    model = load(trained / "model", "cpu")
    images = model.sample(asked, n=4, guide=load(trained / "judge", "cpu").guide(400))
    for ours, theirs in zip(images, drawn[400], strict=True):
        np.testing.assert_array_equal(np.asarray(ours), theirs)


def test_a_guide_draws_nothing_and_says_what_it_is_for(trained, refused):
    line = refused("sample", "--run", trained / "judge", "-p", "a red image")
    assert "'judge' is a guide: it draws no images; steer another model by it" in line
    assert "--guide RUN" in line
    line = refused(
        "sample", "--run", trained / "model", "--guide", trained / "model", "-p", "a red image"
    )
    assert "'plain' is diffusion, not a guide" in line
    line = refused("sample", "--run", trained / "model", "--guide-scale", "3", "-p", "a red image")
    assert "give --guide RUN, too" in line
    line = refused("bench", "shapes", "--models", "judge", "--out", "bench")
    assert "it draws no images" in line
    with pytest.raises(UserError, match="is a guide: it draws no images"):
        load(trained / "judge", "cpu").sample(["a red image"])


def test_former_names_of_a_samplers_settings_are_laid_over_the_runs_own(trained, here, refused):
    sample = (
        "sample",
        "--run",
        trained / "model",
        "-p",
        "a red image",
        "--sampler",
        "ddpm",
        "--json",
    )
    code, out, _ = here(*sample, "--set", "noisiest=30", "--out", "old")
    assert code == 0
    settings = json.loads(out)["samples"][0]["settings"]
    assert settings["sampler"]["sigma_max"] == 30
    assert "give one of them" in refused(
        *sample[:-1], "--set", "noisiest=30", "--set", "sigma_max=20"
    )
