"""What the engine costs, and what each model costs: seconds a training step, seconds an image.

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
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from t2i.benchmarks.report.table import ACROSS, number, plain
from t2i.benchmarks.run.plan import named_models
from t2i.benchmarks.run.reporter import BenchmarkLines, BenchmarkReporter
from t2i.benchmarks.run.training_record import environment
from t2i.benchmarks.speed.sampling_cost import Drawing, measure_drawing
from t2i.core import engine
from t2i.core.devices import best_device
from t2i.core.engine.batches import BatchMaker
from t2i.core.engine.loader import BatchShard, Loader, Views, batch_visits
from t2i.core.engine.local import LocalEngine
from t2i.core.engine.preparing import PreparedStage
from t2i.core.engine.reporting import Status
from t2i.core.errors import T2IError, UserError
from t2i.core.interfaces.dataset import Dataset
from t2i.core.interfaces.trainer import Stage
from t2i.core.io.files import write_json
from t2i.core.models.building import build, stage_settings, stages_of
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, open_dataset, resolve_config
from t2i.core.runs.folder import Run

BLOCK = 25  # steps timed at once
MADE = 8  # batches that making data is timed on
LIMIT = 1.03  # of the bare loop's time: what the engine may take


@dataclass
class StageSpeed:
    """Median seconds a step of one stage, by the engine and by the bare loop, and the median of their ratios.

    batch_size: images a step. data: seconds to make as many, which is done beside the steps before; waiting: seconds
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
    """A model's speed. stages: none where nothing is trained."""

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
        columns = [(model, stage) for model in self.models for stage in _columns(model)]
        for start in range(0, len(columns), ACROSS):
            console.print(_table(columns[start : start + ACROSS]))


def _columns(model: ModelSpeed) -> Sequence[StageSpeed | None]:
    return model.stages or [None]


def _table(columns: Sequence[tuple[ModelSpeed, StageSpeed | None]]) -> Table:
    table = Table("")
    for model, stage in columns:
        table.add_column(
            plain(f"{model.model}: {stage.stage}" if stage else model.model), justify="right"
        )
    training: dict[str, Callable[[StageSpeed], Text | str]] = {
        "bare loop, ms/step": lambda stage: number(1000 * stage.bare),
        "engine, ms/step": lambda stage: number(1000 * stage.engine),
        "engine adds": lambda stage: _added(stage.ratio),
        "the same, processor time": lambda stage: _added(stage.processor_ratio),
        "training, images/s": lambda stage: number(stage.batch_size / stage.engine),
        "making data, ms/step": lambda stage: number(1000 * stage.data),
        "waiting for data, ms/step": lambda stage: number(1000 * stage.waiting),
    }
    for title, cell in training.items():
        table.add_row(title, *(cell(stage) if stage else "" for _, stage in columns))
    table.add_row("sampling, s/image", *(number(model.drawing.seconds) for model, _ in columns))
    table.add_row("sampler adds", *(_added(1 + model.drawing.added) for model, _ in columns))
    return table


def _added(ratio: float) -> Text:
    return Text(f"{ratio - 1:+.1%}", "red" if ratio > LIMIT else "green")


def measure_speed(
    models: Sequence[str] | str | None = None, *, preset: str = "tiny", blocks: int = 8, out: Path | None = None,
    reporter: BenchmarkReporter | None = None,
) -> Speeds:  # fmt: skip
    """Times the training steps and the sampling of models, and what the engine adds to a bare loop. Of models without
    training stages only the sampling is timed, where it can be.

    models: registered models (None or "all": every one). blocks: blocks of 25 steps timed for each stage, at least 2,
    after one to warm up. out: a JSON file to write. Nothing else is kept.
    """
    if blocks < 2:
        raise UserError(f"bench speed: {blocks} blocks are too few; at least 2")
    names = named_models("all" if models is None else models)
    configs = {name: resolve_config(name, preset=preset) for name in names}
    reporter = reporter or BenchmarkLines()
    found = [speed for config in configs.values() if (speed := _measured(config, blocks, reporter))]
    speeds = Speeds(found, environment(best_device()))
    if out:
        write_json(out, speeds.document())
        reporter.say(f"written to {out}")
    return speeds


def _measured(config: RunConfig, blocks: int, reporter: BenchmarkReporter) -> ModelSpeed | None:
    """A model's speed. Of one without training stages the sampling alone is timed; None where that fails."""
    stages = _stages(config)
    if stages:
        reporter.say(f"{config.model}: timing the engine and the bare loop in turns")
        return _measure(_short(config, stages, blocks), stages, blocks)
    reporter.say(f"{config.model}: it has no training stage; timing its sampling alone")
    try:
        return ModelSpeed(config.model, [], measure_drawing(config))
    except T2IError as error:
        reporter.say(f"{config.model}: left out, it cannot be sampled as it is built ({error})")
        return None


def _stages(config: RunConfig) -> Sequence[Stage]:
    return stages_of(config, registry().encoders.build(config.encoder, None))


def _short(config: RunConfig, stages: Sequence[Stage], blocks: int) -> RunConfig:
    """The configuration with so many steps that the shortest stage has `blocks` blocks, and two before them: one that
    starts the clock, one to warm up."""
    shares = [stage.share for stage in stages]
    steps = math.ceil((blocks + 2) * BLOCK * sum(shares) / min(shares)) + len(stages)
    return replace(
        config,
        settings=config.settings.model_copy(
            update={"steps": steps, "minutes": None, **_quiet(steps)}
        ),
    )


def _quiet(steps: int) -> dict[str, int]:
    """Settings with which the engine reports after each block, and neither draws nor saves in between."""
    never = 10 * steps
    return {"log_every": BLOCK, "sample_every": never, "checkpoint_every": never}


def _measure(config: RunConfig, stages: Sequence[Stage], blocks: int) -> ModelSpeed:
    quiet = _quiet(config.settings.steps)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run")
        probe = _Probe(run, [stage.name for stage in stages], blocks)
        with contextlib.suppress(_Enough):
            # A stage may have an interval of its own: here it is the probe's.
            engine.train(
                config,
                run.path,
                reporter=probe,
                wrap=lambda stage: replace(stage, settings={**stage.settings, **quiet}),
            )
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
        twin.shard.total,
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
    """The bare loop: a second model under the same trainer, and the engine of one process."""

    def __init__(self, config: RunConfig, number: int) -> None:
        device = best_device()
        self.model = build(config).to(device)
        stage = stages_of(config, self.model.text_encoder)[number]
        self.stage, self.settings = stage.name, stage_settings(config, stage)
        self.shard = BatchShard(self.settings.batch_size, self.settings.accumulate)
        self.prepared = PreparedStage(
            self.model, stage.trainer(self.model.networks), self.settings, device
        )
        self._engine = LocalEngine(self.prepared.trainer, self.settings, progress=0.5)
        self._maker = BatchMaker(self.prepared, self.settings)
        self._averaged = list(self.prepared.trained().values())
        self._averages = [p.detach().clone() for p in self._averaged]
        self._feed(open_dataset(config.data))
        self.done = 0
        self.waited = 0.0

    def _feed(self, data: Dataset) -> None:
        """Times the making of batches, then has them made as the engine has."""
        settings = self.settings
        views = Views(data, settings.seed, settings.image_size, settings.augment)
        started = time.perf_counter()
        for visits in islice(batch_visits(data, settings.seed, self.shard, 0), MADE):
            views[visits]
        self.making = (time.perf_counter() - started) / MADE * settings.accumulate
        self.loader = Loader(
            views, batch_visits(data, settings.seed, self.shard, 0), settings.workers
        )

    def steps(self, count: int) -> None:
        for _ in range(count):
            self._engine.begin_step(self.done)
            for part in range(self.settings.accumulate):
                self._engine.part = part
                asked = time.perf_counter()
                host = next(self.loader)
                self.waited += time.perf_counter() - asked
                self.prepared.trainer.step(
                    self._maker.make(host, self.done, self.shard, part), self._engine
                )
            if self.settings.ema_decay and self._averages:
                torch._foreach_lerp_(
                    self._averages,
                    [p.detach() for p in self._averaged],
                    1 - self.settings.ema_decay,
                )
            self.done += 1
        if self.model.device.type != "cpu":
            torch.accelerator.synchronize()
