"""What the engine costs, and what each model costs: seconds a training step, seconds a picture.

The engine's steps are timed against those of a bare loop over the same trainer: a twin of the model, trained in turns
with it, block by block, in the same process, so that whatever else the machine is doing slows both alike. The bare
loop does what the model's settings ask (clipping, averaged weights, memory format) on batches that are made beside it,
as the engine's are, and nothing else.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from t2i.benchmarks.report.table import ACROSS, number, plain
from t2i.benchmarks.run.plan import named_models
from t2i.benchmarks.run.reporter import BenchmarkLines, BenchmarkReporter
from t2i.benchmarks.run.training_record import environment
from t2i.benchmarks.speed.sampling_cost import Drawing, measure_drawing
from t2i.core import engine
from t2i.core.devices import best_device
from t2i.core.engine.loader import HostBatch, Loader, Rows, Views, batch_visits
from t2i.core.engine.reporting import Status
from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import Dataset
from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.trainer import Batch, Stage, Trainer
from t2i.core.io.files import write_json
from t2i.core.io.images import to_tensor
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.registry.specs import resolve as resolve_path
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, open_dataset, resolve
from t2i.core.runs.folder import Run

BLOCK = 25  # steps timed at once
MADE = 8  # batches that making data is timed on
LIMIT = 1.03  # of the bare loop's time: what the engine may take


@dataclass
class StageSpeed:
    """Median seconds a step of one stage, by the engine and by the bare loop, and the median of their ratios.

    batch_size: pictures a step. data: seconds to make as many, which is done beside the steps before; waiting: seconds
    a step that the bare loop waited for them.
    processor_ratio: the same of the main thread's processor time, which other programs on the machine disturb less;
    on an accelerator it compares what the two loops themselves compute.
    """

    stage: str
    batch_size: int
    data: float
    waiting: float
    engine: float
    bare: float
    ratio: float
    processor_ratio: float


@dataclass
class ModelSpeed:
    """A model's speed."""

    model: str
    stages: list[StageSpeed]
    drawing: Drawing


@dataclass
class Speeds:
    """What `measure_speed` found."""

    models: list[ModelSpeed]
    environment: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {"format": 1, "limit": LIMIT, **asdict(self)}

    def show(self, console: Console | None = None) -> None:
        """Prints a column for each stage of each model."""
        console = console or Console()
        columns = [(model, stage) for model in self.models for stage in model.stages]
        for start in range(0, len(columns), ACROSS):
            console.print(_table(columns[start : start + ACROSS]))


def _table(columns: Sequence[tuple[ModelSpeed, StageSpeed]]) -> Table:
    table = Table("")
    for model, stage in columns:
        table.add_column(plain(f"{model.model}: {stage.stage}"), justify="right")
    rows: dict[str, list[Text | str]] = {
        "bare loop, ms/step": [number(1000 * s.bare) for _, s in columns],
        "engine, ms/step": [number(1000 * s.engine) for _, s in columns],
        "engine adds": [_added(s.ratio) for _, s in columns],
        "the same, processor time": [_added(s.processor_ratio) for _, s in columns],
        "training, images/s": [number(s.batch_size / s.engine) for _, s in columns],
        "making data, ms/step": [number(1000 * s.data) for _, s in columns],
        "waiting for data, ms/step": [number(1000 * s.waiting) for _, s in columns],
        "sampling, s/image": [number(m.drawing.seconds) for m, _ in columns],
        "sampler adds": [_added(1 + m.drawing.added) for m, _ in columns],
    }
    for title, cells in rows.items():
        table.add_row(title, *cells)
    return table


def _added(ratio: float) -> Text:
    return Text(f"{ratio - 1:+.1%}", "red" if ratio > LIMIT else "green")


def measure_speed(
    models: Sequence[str] | str | None = None, *, preset: str = "tiny", blocks: int = 8, out: Path | None = None,
    reporter: BenchmarkReporter | None = None,
) -> Speeds:  # fmt: skip
    """Times the training steps and the sampling of models, and what the engine adds to a bare loop.

    models: registered models (None or "all": every one). blocks: blocks of 25 steps timed for each stage, at least 2,
    after one to warm up. out: a JSON file to write. Nothing else is kept.
    """
    if blocks < 2:
        raise UserError(f"bench speed: {blocks} blocks are too few; at least 2")
    names = named_models("all" if models is None else models)
    configs = {name: _short(resolve(name, preset=preset), blocks) for name in names}
    reporter = reporter or BenchmarkLines()
    found = []
    for name, config in configs.items():
        reporter.say(f"{name}: timing the engine and the bare loop in turns")
        found.append(_measure(config, blocks))
    speeds = Speeds(found, environment(best_device()))
    if out:
        write_json(out, speeds.document())
        reporter.say(f"written to {out}")
    return speeds


def _short(config: RunConfig, blocks: int) -> RunConfig:
    """The configuration with so many steps that the shortest stage has `blocks` blocks, and two before them: one that
    starts the clock, one to warm up."""
    settings = config.settings
    stages = _stages(config, build(config))
    if not stages:
        raise UserError(f"model '{config.model}' has no training stage: there is nothing to time")
    shares = [stage.share for stage in stages]
    steps = math.ceil((blocks + 2) * BLOCK * sum(shares) / min(shares)) + len(stages)
    never = 10 * steps
    budget = {"steps": steps, "minutes": None, "log_every": BLOCK, "sample_every": never, "checkpoint_every": never}
    return replace(config, settings=settings.model_copy(update=budget))


def _stages(config: RunConfig, model: Model) -> Sequence[Stage]:
    stages: Sequence[Stage] = resolve_path(registry().models[config.model].stages)(config.settings, model.text_encoder)
    return stages


def _measure(config: RunConfig, blocks: int) -> ModelSpeed:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run")
        probe = _Probe(run, [stage.name for stage in _stages(config, build(config))], blocks)
        with contextlib.suppress(_Enough):
            engine.train(config, run.path, reporter=probe)
        return ModelSpeed(config.model, probe.speeds, measure_drawing(run.config()))


@dataclass(frozen=True)
class _Time:
    """A moment, or a span: on the wall's clock and on the main thread's, in seconds."""

    wall: float
    thread: float

    @classmethod
    def now(cls) -> _Time:
        return cls(time.perf_counter(), time.thread_time())

    def since(self, start: _Time, steps: int) -> _Time:
        """Time a step since then."""
        return _Time((self.wall - start.wall) / steps, (self.thread - start.thread) / steps)


def _stage_speed(twin: _Twin, turns: Sequence[tuple[_Time, _Time]]) -> StageSpeed:
    """From the (engine, bare) time a step of each block. The first warms up."""
    kept = turns[1:]
    return StageSpeed(
        twin.stage,
        twin.rows.total,
        twin.making,
        twin.waited / twin.done,
        median(own.wall for own, _ in kept),
        median(bare.wall for _, bare in kept),
        median(own.wall / bare.wall for own, bare in kept),
        median(own.thread / bare.thread for own, bare in kept),
    )


class _Enough(Exception):
    """All that was wanted has been timed: the engine may stop."""


class _Probe:
    """A reporter of the engine. Between two of its reports the engine has made a block of steps; within a report the
    bare loop makes as many. `blocks` of each of `stages` are timed, after one to warm up."""

    def __init__(self, run: Run, stages: Sequence[str], blocks: int) -> None:
        self._run, self._stages, self._blocks = run, stages, blocks
        self._twin: _Twin | None = None
        self._step, self._mark = 0, _Time.now()
        self._turns: list[tuple[_Time, _Time]] = []
        self.speeds: list[StageSpeed] = []

    def say(self, text: str) -> None:
        pass

    def close(self) -> None:
        """Ends a stage's bare loop, and keeps what its turns say."""
        if self._twin:
            self._twin.loader.close()
            self.speeds.append(_stage_speed(self._twin, self._turns))
        self._twin, self._turns = None, []

    def status(self, status: Status) -> None:
        now = _Time.now()
        steps = status.step - self._step
        if self._twin is None or status.stage != self._twin.stage:
            self._begin(status.stage)
        elif steps == BLOCK and len(self._turns) <= self._blocks:
            started = _Time.now()
            self._twin.steps(steps)
            self._turns.append((now.since(self._mark, steps), _Time.now().since(started, steps)))
        if status.stage == self._stages[-1] and len(self._turns) > self._blocks:
            raise _Enough
        self._step, self._mark = status.step, _Time.now()

    def _begin(self, stage: str) -> None:
        self.close()
        self._twin = _Twin(self._run.config(), self._stages.index(stage))
        self._twin.steps(2)


class _Twin:
    """The bare loop: a second model under the same trainer, with batches in memory. It is the trainer's engine too."""

    progress = 0.5

    def __init__(self, config: RunConfig, stage: int) -> None:
        self.settings, device = config.settings, best_device()
        self.model = build(config).to(device)
        chosen = _stages(config, self.model)[stage]
        self.stage = chosen.name
        self.rows = Rows(chosen.batch_size or self.settings.batch_size, self.settings.accumulate)
        self.trainer: Trainer = chosen.trainer(self.model.generator, self.model.text_encoder)
        self.model.generator.eval()
        self.model.text_encoder.eval()
        for module in self.trainer.modules.values():
            module.to(device).train()
            if self.settings.channels_last:
                module.to(memory_format=torch.channels_last)
        self._parameters = {
            name: [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
            for name, optimizer in self.trainer.optimizers.items()
        }
        trained = {id(p) for parameters in self._parameters.values() for p in parameters}
        self._encoder_trains = any(id(p) in trained for p in self.model.text_encoder.parameters())
        parts: list[nn.Module] = [self.model.generator, self.model.text_encoder]
        self._averaged = [p for part in parts for p in part.parameters() if id(p) in trained]
        self._averages = [p.detach().clone() for p in self._averaged]
        self._feed(open_dataset(config.data))
        self.done = self._part = 0
        self.waited = 0.0

    def _feed(self, data: Dataset) -> None:
        """Times the making of batches, then has them made as the engine has."""
        settings = self.settings
        views = Views(data, settings.seed, settings.image_size, settings.augment)
        started = time.perf_counter()
        for visits in islice(batch_visits(data, settings.seed, self.rows, 0), MADE):
            views[visits]
        self.making = (time.perf_counter() - started) / MADE * settings.accumulate
        self.loader = Loader(views, batch_visits(data, settings.seed, self.rows, 0), settings.workers)

    def _batch(self, host: HostBatch) -> Batch:
        device = self.model.device
        images = to_tensor(host.images, device)
        if self.settings.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        noise = StepNoise(self.settings.seed, self.done, 0, self.rows.count, self.rows.count, device)
        return Batch(images, host.captions, host.keys, noise, self._encode, host.extras)

    def _encode(self, captions: Sequence[str]) -> Any:
        with torch.set_grad_enabled(self._encoder_trains):
            return self.model.text_encoder.encode(captions)

    def steps(self, count: int) -> None:
        for _ in range(count):
            for part in range(self.settings.accumulate):
                self._part = part
                asked = time.perf_counter()
                host = next(self.loader)
                self.waited += time.perf_counter() - asked
                self.trainer.step(self._batch(host), self)
            if self.settings.ema_decay and self._averages:
                torch._foreach_lerp_(self._averages, [p.detach() for p in self._averaged], 1 - self.settings.ema_decay)
            self.done += 1
        if self.model.device.type != "cpu":
            torch.accelerator.synchronize()

    def update(self, name: str, loss: Tensor) -> None:
        parameters, optimizer = self._parameters[name], self.trainer.optimizers[name]
        torch.autograd.backward(loss / self.settings.accumulate, inputs=parameters)
        if self._part < self.settings.accumulate - 1:
            return
        if self.settings.grad_clip:
            nn.utils.clip_grad_norm_(parameters, self.settings.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def shifted(self, x: Tensor) -> Tensor:
        return torch.roll(x, 1, 0)

    def gathered(self, x: Tensor) -> Tensor:
        return x
