"""The family `cascade`, proven by two small diffusion models: 8 pixels, then 16, the second given
the first's image."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from t2i.cli.main import main
from t2i.core.engine import train
from t2i.core.engine.reporting import Silent
from t2i.core.families.cascade import PREVIOUS, CascadeGenerator
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.schedule import DiscreteSchedule
from t2i.core.interfaces.trainer import Stage, Trainer
from t2i.core.models.building import build
from t2i.core.models.loading import load
from t2i.core.runs.configure import parse_sets, resolve_config
from t2i.core.settings import ModelConfig, Preset

BASE = 8


class Config(ModelConfig):
    width: int = 16
    lr: float = 3e-3

    @classmethod
    def presets(cls):
        small = {
            "steps": 300,
            "batch_size": 8,
            "image_size": 2 * BASE,
            "sample_every": 1000,
            "ema_decay": 0.0,
        }
        samplers = {
            "base": {"name": "ddim", "steps": 8},
            "upsampler": {"name": "ddim", "steps": 4, "guidance": 1.5},
        }
        sampler = ("cascade", {"samplers": samplers})
        return {
            "tiny": Preset(small, data=("toydata", {}), encoder=("toytext", {}), sampler=sampler)
        }


class Denoiser(DiffusionGenerator):
    """Two convolutions of x_t, the image before, and text and time in every pixel; it predicts
    x_0."""

    prediction = "sample"

    def __init__(self, size, width, text, given):
        super().__init__()
        self.image_size, self.noise_shape, self.given = size, (3, size, size), given
        self.schedule = DiscreteSchedule(torch.linspace(0.02, 0.6, 16, device="cpu"))
        self.text = nn.Linear(text.sentence, width)
        channels = 3 + 1 + width + (3 if given else 0)
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, 3, 1)
        )

    def condition(self, text):
        return replace(text, extras={**text.extras, "map": self.text(text.sentence)})

    def forward(self, x_t, t, text):
        size = (self.image_size, self.image_size)
        maps = [text.extras["map"], t[:, None].to(x_t.dtype) / 16]
        parts = [x_t, *(x[:, :, None, None].expand(-1, -1, *size) for x in maps)]
        if self.given:
            parts.append(F.interpolate(text.extras[PREVIOUS], size=size))
        return self.body(torch.cat(parts, 1))


class Pair(CascadeGenerator):
    """The upsampler is given the base's image within [-1, 1], and a little noise (conditioning
    augmentation)."""

    def __init__(self, config, text, assets=None):
        super().__init__()
        self.image_size = config.image_size
        base = Denoiser(BASE, config.width, text, given=False)
        self.parts = nn.ModuleDict(
            {"base": base, "upsampler": Denoiser(2 * BASE, config.width, text, given=True)}
        )

    def link(self, name, text, previous, noise):
        if previous is not None:
            previous = previous.clamp(-1, 1) + 0.05 * noise.normal(
                "augmentation", 0, previous.shape[1:]
            )
        return super().link(name, text, previous, noise)


class PartTrainer(Trainer):
    """Squared error of x_0 of one part; what it is given is the real image, made small."""

    def __init__(self, config, generator, text_encoder, name):
        self.generator, self.name = generator, name
        self.modules = {"generator": generator, "text_encoder": text_encoder}
        trained = [
            *generator.part(name).parameters(),
            *(text_encoder.parameters() if name == "base" else ()),
        ]
        self.optimizers = {name: torch.optim.Adam(trained, config.lr)}

    def step(self, batch, engine):
        part, noise = self.generator.part(self.name), batch.noise
        small = F.adaptive_avg_pool2d(batch.images, BASE)
        x_0, previous = (small, None) if self.name == "base" else (batch.images, small)
        text = batch.text if self.name == "base" else batch.text.detach()
        keep = noise.uniform("drop", 0, ()) >= 0.1
        text = text.where(keep, batch.null() if self.name == "base" else batch.null().detach())
        t, eps = noise.integers("t", 0, 16), noise.normal("eps", 0, part.noise_shape)
        alpha, sigma = (
            f(t)[:, None, None, None] for f in (part.schedule.alpha, part.schedule.sigma)
        )
        text = self.generator.link(self.name, text, previous, noise.scope("link"))
        loss = (part(alpha * x_0 + sigma * eps, t, text) - x_0).square().mean()
        engine.update(self.name, loss)
        return {"x_0": loss}


def stages(config, text_encoder):
    def of(name):
        return lambda n: PartTrainer(config, n.generator, n.text_encoder, name)

    return [Stage(name, 1.0, of(name)) for name in ("base", "upsampler")]


@pytest.fixture
def pair(registered):
    registered("pair", "cascade", Config, Pair, stages)


@pytest.fixture
def run(pair, tmp_path):
    return train(
        resolve_config("pair", overrides={"steps": 4}), tmp_path / "run", reporter=Silent()
    )


def test_it_trains_and_draws_what_the_captions_say(pair, tmp_path):
    model = load(train(resolve_config("pair"), tmp_path / "run", reporter=Silent()).path, "cpu")
    captions = ["a red image", "a green image", "a blue image"]
    images = [drawn for batch in model.stream(captions, n=4) for drawn in batch]
    assert all(drawn.image.shape == (16, 16, 3) for drawn in images)
    right = [int(drawn.image.mean((0, 1)).argmax()) == drawn.prompt for drawn in images]
    assert sum(right) >= 10, right


def test_settings_of_a_part_are_laid_over_the_presets(pair):
    model = build(resolve_config("pair"))

    def samplers(*sets):
        return model.sampler(settings=parse_sets(sets)).config.model_dump()["samplers"]

    default = {
        "base": {"name": "ddim", "steps": 8},
        "upsampler": {"name": "ddim", "steps": 4, "guidance": 1.5},
    }
    assert samplers() == default
    changed = samplers("samplers.upsampler.steps=5", "samplers.upsampler.eta=1")
    assert changed == {
        **default,
        "upsampler": {"name": "ddim", "steps": 5, "guidance": 1.5, "eta": 1},
    }
    # Another sampler's settings are its own, in whichever order they are given.
    for sets in (["name=ddpm", "steps=3"], ["steps=3", "name=ddpm"]):
        other = samplers(*(f"samplers.base.{one}" for one in sets))
        assert other == {**default, "base": {"name": "ddpm", "steps": 3}}
    trained = resolve_config("pair", sets=["sampler.samplers.base.steps=2"])
    assert trained.sampler.config.samplers["base"] == {"name": "ddim", "steps": 2}


def test_the_command_line_reaches_a_parts_settings(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["sample", "--run", str(run.path), "-p", "a red image", "--out", "out"]
    assert (
        main([*command, "--set", "samplers.upsampler.steps=5", "--set", "samplers.base.name=ddpm"])
        == 0
    )
    (line,) = (
        json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()
    )
    assert line["settings"]["sampler"]["samplers"] == {
        "base": {"name": "ddpm"}, "upsampler": {"name": "ddim", "steps": 5, "guidance": 1.5},
    }  # fmt: skip
    capsys.readouterr()
    for wrong, message in [
        (
            ["--set", "samplers.upsampler.stepz=5"],
            "no setting is named 'stepz'; did you mean 'steps'",
        ),
        (
            ["--set", "samplers.base.name=direct"],
            "sampler 'direct' draws from one-shot models, but 'base'",
        ),
        (["--set", "samplers.middle.steps=5"], "the model has no part 'middle'"),
        (["--guidance", "3"], "each part of a cascade has guidance of its own"),
        (
            ["--sampler", "ddim"],
            "sampler 'ddim' draws from diffusion models, but 'pair' is cascade",
        ),
    ]:
        assert main([*command, *wrong]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_it_keeps_its_promises(pair, outcomes):
    found = outcomes("pair")
    assert {name: told for name, told in found.items() if told[0] == "FAILED"} == {}
    assert (
        found["models batch-size"][0]
        == found["models saves"][0]
        == found["models samplers"][0]
        == "ok"
    )
    sampler = outcomes("cascade")
    assert {name: told for name, told in sampler.items() if told[0] == "FAILED"} == {}
    assert sampler["samplers batch-size"][0] == sampler["families class"][0] == "ok"
