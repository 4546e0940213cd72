"""The objects that all parts of the engine share during a run, in each of its processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator

from t2i.core.engine import checkpoint
from t2i.core.engine.checkpoint import Saved, TrainState
from t2i.core.engine.loader import BatchShard
from t2i.core.engine.observer import Observer
from t2i.core.engine.reporting import Reporter
from t2i.core.engine.running_time import RunningTime
from t2i.core.engine.scores import VALIDATION, Examiner
from t2i.core.engine.signals import StopRequest
from t2i.core.engine.tracking import Trackers
from t2i.core.errors import Interrupted
from t2i.core.interfaces.broken import Broken
from t2i.core.interfaces.dataset import BrokenExample, Dataset
from t2i.core.interfaces.trainer import Stage
from t2i.core.io.processes import everyones
from t2i.core.models.model import Model
from t2i.core.runs.configure import RunConfig
from t2i.core.runs.folder import Run
from t2i.core.runs.record import Log
from t2i.core.settings import ModelConfig


@dataclass(frozen=True)
class Plan:
    """A stage of this run with its settings.

    Args:
        index: Number of the stage, from 0.
        stage: The stage as the model declares it.
        settings: The run's settings with the stage's own laid over them.
        shard: This process's part of the stage's batches.
    """

    index: int
    stage: Stage
    settings: ModelConfig
    shard: BatchShard


@dataclass
class RunContext:
    """A run, as one of its processes sees it.

    Args:
        run: The run's folder.
        config: The resolved configuration.
        accelerator: Device, precision and processes.
        reporter: Where progress is reported; silent in processes other than the first.
        dataset: The training data.
        model: The model that is trained.
        plans: The stages, in order.
        log: The log, RUN/metrics.jsonl.
        broken: The broken examples that were skipped.
        trackers: Trackers of other programs, which receive the log and the grids too.
        state: How far the run is.
        stop: The signal that arrived, if one did.
        start: Checkpoint of the run whose weights this one started from, if it did.
        observer: Called between steps. None: nobody observes the run.
        started: When the run would have started had it never been interrupted, in seconds of
            `time.monotonic`.
        running: The time that training is charged for, without pauses.
        examiner: Scores samples of the model while it trains. None: nobody does.
        note: The last score that decides, for the terminal. "": there was none in this session.
    """

    run: Run
    config: RunConfig
    accelerator: Accelerator
    reporter: Reporter
    dataset: Dataset
    model: Model
    plans: Sequence[Plan]
    log: Log
    broken: Broken
    trackers: Trackers
    state: TrainState = field(default_factory=TrainState)
    stop: StopRequest = field(default_factory=StopRequest)
    start: Saved | None = None
    observer: Observer | None = None
    started: float = field(default_factory=time.monotonic)
    running: RunningTime = field(default_factory=RunningTime)
    examiner: Examiner | None = None
    note: str = ""

    @property
    def settings(self) -> ModelConfig:
        """The settings of the run; those of a stage are in its plan."""
        return self.config.settings

    @property
    def is_first(self) -> bool:
        """Whether this is the first process, which writes files and reports."""
        return bool(self.accelerator.is_main_process)

    def is_score(self, name: str) -> bool:
        """Tell whether a name is that of a score, not of a loss in the log.

        Args:
            name: The name.

        Returns:
            True if it is.
        """
        names = self.examiner.names if self.examiner else ()
        return name.startswith(VALIDATION) or name in names

    def wall(self) -> float:
        """Return the wall time of the run in all its sessions.

        Returns:
            Seconds, without the time between an interruption and its resumption.
        """
        return time.monotonic() - self.started

    def spend(self, seconds: float) -> None:
        """Add time to the training clocks of run and stage, which a budget in minutes uses.

        Args:
            seconds: The time to add.
        """
        self.state.clock += seconds
        self.state.stage_clock += seconds

    def interrupted(self) -> int:
        """Return the signal that any process received.

        All processes must call this together.

        Returns:
            The largest signal number received, 0 if none.
        """
        if self.accelerator.num_processes == 1:
            return self.stop.number
        number = torch.tensor(self.stop.number, device=self.accelerator.device)
        return int(self.accelerator.gather(number[None]).max())

    def stop_here(self, number: int) -> None:
        """Stop the run because of a signal; everything must have been saved.

        Args:
            number: Number of the signal.

        Raises:
            Interrupted: Always. Its message says how to resume.
        """
        how = "stopped" if number == signal.SIGINT else f"stopped by {signal_name(number)}"
        where = f"step {self.state.step}; 't2i train --resume {self.run.path}' goes on"
        raise Interrupted(f"{how}, saved at {where}", number)

    def count_broken(self, found: Iterable[BrokenExample]) -> None:
        """Report and count the broken examples that the loaders of all processes skipped.

        All processes must call this together; they count the same and so stop together.

        Args:
            found: The broken examples of this process.

        Raises:
            UserError: Too many examples are broken (`max_broken`).
        """
        everyone = everyones(list(found), self.accelerator.num_processes)
        self.broken.add([error for own in everyone for error in own])

    def remedy(self, option: str = "") -> str:
        """Return advice on how to continue after a failure.

        Args:
            option: Option to add to the resume command, with a space before it. "": none.

        Returns:
            The newest sound checkpoint and the command that resumes from it, or the advice to begin
            again if there is none.
        """
        saved, _ = checkpoint.newest(self.run.checkpoints)
        if saved is None:
            return (
                "no sound checkpoint is left: begin again"
                f"{option and f' with a lower learning rate, or{option}'}"
            )
        command = f"'t2i train --resume {self.run.path}{option}'"
        return f"the last sound checkpoint is {saved.folder}: {command} goes on from it"


def signal_name(number: int) -> str:
    """Return the name of a signal.

    Args:
        number: Number of the signal.

    Returns:
        The name, such as "SIGINT".
    """
    return signal.Signals(number).name
