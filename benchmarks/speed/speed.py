"""Measure the cost of the engine and of each model: seconds per training step, seconds per image.

The engine's steps are compared with those of a bare loop over the same trainer. The loop trains a
twin of the model. The two take turns, block by block, in the same process, so that other work on
the machine slows both alike. The bare loop does what the model's settings say (clipping, averaged
weights, memory format) on batches that are made in parallel, as the engine's are, and nothing else.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from t2i.benchmarks.report.table import number, plain
from t2i.benchmarks.run.operations import attainable_seconds
from t2i.benchmarks.run.plan import named_models
from t2i.benchmarks.run.reporter import BenchmarkLines, BenchmarkReporter
from t2i.benchmarks.run.training_record import environment
from t2i.benchmarks.speed.bare_loop import Twin
from t2i.benchmarks.speed.sampling_cost import Drawing, measure_drawing
from t2i.core import engine
from t2i.core.devices import best_device
from t2i.core.engine.status import Status
from t2i.core.errors import T2IError, UserError
from t2i.core.interfaces.trainer import Stage
from t2i.core.io.json_files import write_json
from t2i.core.models.building import stages_of
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, resolve_config
from t2i.core.runs.folder import Run

ACROSS = 4  # columns of stages in one table
BLOCK = 25  # steps that are timed at once
LIMIT = 1.03  # the engine's largest allowed time, as a multiple of the bare loop's
SHARE = 0.65  # the least share of the rate that a step's convolutions and products reach alone


@dataclass
class StageSpeed:
    """The speed of one training stage.

    Args:
        stage: Name of the stage.
        batch_size: Images in a step.
        data: Seconds to make the data of a step. It is made during earlier steps.
        waiting: Seconds per step that the bare loop waited for data.
        engine: Median seconds per step of the engine.
        bare: Median seconds per step of the bare loop.
        ratio: Median over blocks of the engine's time divided by the bare loop's.
        processor_ratio: The same ratio of the main thread's processor time, which other programs on
            the machine disturb less. With an accelerator, it compares what the loops themselves
            compute.
        operations: Arithmetic operations of the convolutions and matrix products of a step.
        alone: Median seconds that the same convolutions and products take alone (`operations.py`).
        share: Median over blocks of that time divided by the bare loop's: the share of the rate
            that this machine reaches with such sizes.
    """

    stage: str
    batch_size: int
    data: float
    waiting: float
    engine: float
    bare: float
    ratio: float
    processor_ratio: float
    operations: int
    alone: float
    share: float


@dataclass
class ModelSpeed:
    """The speed of a model.

    Args:
        model: Name of the model.
        stages: The speed of each training stage; empty if the model is not trained.
        drawing: The cost of sampling.
    """

    model: str
    stages: list[StageSpeed]
    drawing: Drawing


@dataclass
class Speeds:
    """The results of `measure_speed`.

    Args:
        models: The speed of each model.
        environment: Versions of libraries, system and device.
    """

    models: list[ModelSpeed]
    environment: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Convert the results to JSON.

        Returns:
            All fields, the number of the format, the limit of the engine's time, and the least
            share of the rate of the same convolutions and products alone.
        """
        return {"format": 2, "limit": LIMIT, "least_share": SHARE, **asdict(self)}

    def show(self, console: Console | None = None) -> None:
        """Print a column for each stage of each model.

        Args:
            console: Where to print. None: stdout.
        """
        console = console or Console()
        columns = [(model, stage) for model in self.models for stage in _columns(model)]
        for start in range(0, len(columns), ACROSS):
            console.print(_table(columns[start : start + ACROSS]))


def _columns(model: ModelSpeed) -> Sequence[StageSpeed | None]:
    """Return the stages of a model, or a single None if it has none."""
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
        "arithmetic, GFLOP/step": lambda stage: number(stage.operations / 1e9),
        "bare loop, GFLOP/s": lambda stage: number(stage.operations / stage.bare / 1e9),
        "the same sizes alone, GFLOP/s": lambda stage: number(stage.operations / stage.alone / 1e9),
        "share of that rate": lambda stage: _share(stage.share),
    }
    for title, cell in training.items():
        table.add_row(title, *(cell(stage) if stage else "" for _, stage in columns))
    table.add_row("sampling, s/image", *(number(model.drawing.seconds) for model, _ in columns))
    table.add_row("sampler adds", *(_added(1 + model.drawing.added) for model, _ in columns))
    return table


def _added(ratio: float) -> Text:
    """Format a ratio as the percentage above 1; red above the limit."""
    return Text(f"{ratio - 1:+.1%}", "red" if ratio > LIMIT else "green")


def _share(share: float) -> Text:
    """Format a share as a percentage; red below the least."""
    return Text(f"{share:.0%}", "red" if share < SHARE else "green")


def measure_speed(
    models: Sequence[str] | str | None = None, *, preset: str = "tiny", blocks: int = 8,
    out: Path | None = None, reporter: BenchmarkReporter | None = None,
) -> Speeds:  # fmt: skip
    """Measure the time of training steps and of sampling, and what the engine adds to a bare loop.

    Of a model without training stages only the sampling is measured. It is left out if it cannot be
    sampled untrained.

    Args:
        models: Names of registered models. None or "all": every model that makes images.
        preset: Preset of the models.
        blocks: Number of blocks of 25 steps that are timed for each stage, after one to warm up; at
            least 2.
        out: JSON file to write the results to. None: none. No other file is kept.
        reporter: Receives the progress. None: lines on stderr.

    Returns:
        The results.

    Raises:
        UserError: `blocks` is below 2, a model or preset is unknown, or a model makes no images.
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
    """Measure a model; None if it has no training stages and cannot be sampled untrained."""
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
    """Set the number of steps so that the shortest stage has `blocks` + 2 blocks.

    The first of them starts the clock, the second warms up.
    """
    shares = [stage.share for stage in stages]
    steps = math.ceil((blocks + 2) * BLOCK * sum(shares) / min(shares)) + len(stages)
    return replace(
        config,
        settings=config.settings.model_copy(
            update={"steps": steps, "minutes": None, **_quiet(steps)}
        ),
    )


def _quiet(steps: int) -> dict[str, int | None]:
    """Return settings that make the engine report after each block, and not sample or save."""
    never = 10 * steps
    return {
        "log_every": BLOCK,
        "sample_every": never,
        "sample_seconds": None,
        "checkpoint_every": never,
    }


def _measure(config: RunConfig, stages: Sequence[Stage], blocks: int) -> ModelSpeed:
    """Train a model in a temporary folder until all stages are measured."""
    quiet = _quiet(config.settings.steps)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run")
        probe = _Probe(run, [stage.name for stage in stages], blocks)
        with contextlib.suppress(_Enough):
            # A stage may set its own intervals, so they are overridden in each stage.
            engine.train(
                config,
                run.path,
                reporter=probe,
                wrap=lambda stage: replace(stage, settings={**stage.settings, **quiet}),
            )
        return ModelSpeed(config.model, probe.speeds, measure_drawing(run.config()))


@dataclass(frozen=True)
class _Time:
    """A point in time or a duration, in seconds: wall clock and main thread's processor time."""

    wall: float
    thread: float

    @classmethod
    def now(cls) -> _Time:
        return cls(time.perf_counter(), time.thread_time())

    def since(self, start: _Time, steps: int) -> _Time:
        """Return the time per step since `start`."""
        return _Time((self.wall - start.wall) / steps, (self.thread - start.thread) / steps)


@dataclass(frozen=True)
class _Turn:
    """The times per step of a block.

    `alone` is that of the step's convolutions and products, in seconds.
    """

    engine: _Time
    bare: _Time
    alone: float


def _stage_speed(twin: Twin, turns: Sequence[_Turn]) -> StageSpeed:
    """Summarise the times of all blocks; the first block only warms up."""
    kept = turns[1:]
    return StageSpeed(
        twin.stage,
        twin.shard.total,
        twin.making,
        twin.waited / twin.done,
        median(turn.engine.wall for turn in kept),
        median(turn.bare.wall for turn in kept),
        median(turn.engine.wall / turn.bare.wall for turn in kept),
        median(turn.engine.thread / turn.bare.thread for turn in kept),
        twin.arithmetic.total * twin.settings.accumulate,
        median(turn.alone for turn in kept),
        median(turn.alone / turn.bare.wall for turn in kept),
    )


class _Enough(Exception):
    """Raised by the probe to stop the engine when everything has been measured."""


class _Probe:
    """A reporter of the engine that measures it.

    Between two reports the engine makes a block of steps. During a report the bare loop makes as
    many, and the convolutions and matrix products of a step are timed alone. In each stage `blocks`
    blocks are timed, after one to warm up.
    """

    def __init__(self, run: Run, stages: Sequence[str], blocks: int) -> None:
        self._run, self._stages, self._blocks = run, stages, blocks
        self._twin: Twin | None = None
        self._step, self._mark = 0, _Time.now()
        self._turns: list[_Turn] = []
        self.speeds: list[StageSpeed] = []

    def say(self, text: str) -> None:
        pass

    def close(self) -> None:
        """End a stage's bare loop, and store the stage's speed."""
        if self._twin:
            self._twin.loader.close()
            self.speeds.append(_stage_speed(self._twin, self._turns))
        self._twin, self._turns = None, []

    def status(self, status: Status) -> None:
        """Time the block that the engine has just made, then one of the bare loop."""
        now = _Time.now()
        steps = status.step - self._step
        if self._twin is None or status.stage != self._twin.stage:
            self._begin(status.stage)
        elif steps == BLOCK and len(self._turns) <= self._blocks:
            self._turns.append(self._turn(now.since(self._mark, steps), self._twin, steps))
        if status.stage == self._stages[-1] and len(self._turns) > self._blocks:
            raise _Enough
        self._step, self._mark = status.step, _Time.now()

    def _turn(self, engine: _Time, twin: Twin, steps: int) -> _Turn:
        """Time a block of the bare loop, and the convolutions and products of a step."""
        started = _Time.now()
        twin.steps(steps)
        bare = _Time.now().since(started, steps)
        alone = attainable_seconds(twin.arithmetic) * twin.settings.accumulate
        return _Turn(engine, bare, alone)

    def _begin(self, stage: str) -> None:
        """Start the bare loop of a stage, with two steps to warm up."""
        self.close()
        self._twin = Twin(self._run.config(), self._stages.index(stage))
        self._twin.steps(2)
