"""A model that is one step brighter with each step, and a benchmark that reads how bright it is."""

import sys
from types import MappingProxyType, ModuleType

import pytest
import torch

from t2i.benchmarks.run import arithmetic as arithmetic_module
from t2i.benchmarks.run.arithmetic import Arithmetic
from t2i.benchmarks.speedrun import judge, runner
from t2i.benchmarks.speedrun.request import SpeedrunRequest
from t2i.benchmarks.speedrun.runner import run_speedrun
from t2i.core.engine.reporting import Silent
from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.scoring import Benchmark, Measure, Metric, PromptSet
from t2i.core.interfaces.trainer import Stage, Trainer
from t2i.core.registry.hooks import hookimpl
from t2i.core.registry.specs import BenchmarkSpec, MetricSpec, ModelSpec
from t2i.core.settings import Config, ModelConfig, Preset

LEVEL = 5  # by so many of 255 an image is brighter after a step


class RampConfig(ModelConfig):
    lr: float = 1.0
    noisy: bool = False
    """Whether the step draws from torch's global generator, as dropout does."""

    @classmethod
    def presets(cls):
        settings = {
            "steps": 20, "batch_size": 2, "image_size": 8, "ema_decay": 0.0, "log_every": 1,
            "checkpoint_every": 4, "sample_every": 100,
        }  # fmt: skip
        return {"tiny": Preset(settings, data=("toydata", {}), encoder=("toytext", {}))}


class RampGenerator(OneShotGenerator):
    """All pixels have the level, whatever the noise."""

    def __init__(self, config, text, assets=None):
        super().__init__()
        self.image_size, self.noise_shape = config.image_size, (1,)
        self.level = torch.nn.Parameter(torch.zeros(()))

    def forward(self, noise, text):
        shade = 2 * self.level * LEVEL / 255 - 1
        return shade + torch.zeros(len(noise), 3, self.image_size, self.image_size)


class RampTrainer(Trainer):
    """Raises the level by the learning rate in the stage "rise"; in "wait" a spare layer trains."""

    def __init__(self, config, networks, rises):
        self.config, self.generator = config, networks.generator
        spare = torch.nn.Linear(4, 2)
        self.modules = {"generator": networks.generator, "spare": spare}
        trained = [networks.generator.level] if rises else list(spare.parameters())
        self.optimizers = {"only": torch.optim.SGD(trained, config.lr)}
        self.rises = rises

    def step(self, batch, engine):
        spare = self.modules["spare"](batch.images.flatten(1)[:, :4]).mean()
        noise = torch.rand(()) if self.config.noisy else torch.zeros(())
        loss = -self.generator.level + 0 * spare if self.rises else spare
        engine.update("only", loss)
        return {"loss": loss + noise}


def ramp_stages(config, encoder):
    def made(rises):
        return lambda networks: RampTrainer(config, networks, rises)

    return [Stage("wait", 1.0, made(False)), Stage("rise", 3.0, made(True))]


class LevelMetric(Metric):
    """How many steps the images have behind them."""

    better = MappingProxyType({"level %": "higher"})

    def __init__(self, config):
        self.levels = []

    def update(self, images):
        self.levels += (images.images.mean((1, 2, 3)) / LEVEL).tolist()

    def compute(self):
        return {"level %": sum(self.levels) / len(self.levels)}

    def intervals(self):
        value = self.compute()["level %"]
        return {"level %": (value - 1, value + 1)}


def ramps_benchmark(config, protocol):
    return Benchmark(
        name="ramps", protocol=protocol, dataset="squares", image_size=8,
        prompts=(PromptSet("val", "val", 12, headline=True), PromptSet("other", "other", 6)),
        measures=(Measure("level", shown={"level %": "level %"}), Measure("fid")),
        headline=("level", "level %"), default_models=(("ramp",),), minutes=1.0, reference=30,
        marks={"": (99,), "one-shot": (3, 6)},
    )  # fmt: skip


class RampPlugin:
    @hookimpl
    def t2i_models(self):
        return [
            ModelSpec(
                name="ramp", summary="Brighter", config="t2i_ramp:Config", stages="t2i_ramp:stages",
                generator="t2i_ramp:generator", family="one-shot", paper="none", presets=("tiny",),
            )
        ]  # fmt: skip

    @hookimpl
    def t2i_metrics(self):
        return [
            MetricSpec(name="level", summary="L", config="t2i_ramp:None_", build="t2i_ramp:metric")
        ]

    @hookimpl
    def t2i_benchmarks(self):
        return [
            BenchmarkSpec(
                name="ramps", summary="Ramps", config="t2i_ramp:None_",
                build="t2i_ramp:benchmark", protocols=("tiny",),
            )
        ]  # fmt: skip


@pytest.fixture
def ramps(plug, squares, monkeypatch):
    """The model `ramp` and the benchmark `ramps`, registered for one test."""
    module = ModuleType("t2i_ramp")
    module.__dict__.update(
        Config=RampConfig, generator=RampGenerator, stages=ramp_stages, metric=LevelMetric,
        benchmark=ramps_benchmark, None_=Config,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "t2i_ramp", module)
    plug(RampPlugin(), "ramps")


@pytest.fixture
def speedrun(ramps, tmp_path, words, monkeypatch):
    """`speedrun(**fields)` makes a speed run of `ramp` in OUT; `words` hears both reporters.

    Plots are left out, which take longer than all the rest, and a trial is of 4 captions. A step of
    "wait" has 10 operations, one of "rise" 100, and the machine does 500 a second.
    """
    known = Arithmetic({"wait": 10.0, "rise": 100.0}, {"wait": 0.02, "rise": 0.2})
    monkeypatch.setattr(arithmetic_module, "arithmetic", lambda *_: known)
    monkeypatch.setattr(runner, "score_curves", lambda curves, marks, headline: b"<svg/>")
    monkeypatch.setattr(judge, "TRIAL", 4)
    engine = Silent()
    engine.say = words.say

    def run(**fields):
        request = {"benchmark": "ramps", "steps": 20, "every": 2, "out": tmp_path / "out"} | fields
        return run_speedrun(SpeedrunRequest(**request), words, engine)

    return run
