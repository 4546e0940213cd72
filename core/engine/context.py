"""What the parts of a run share, in each of its processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator

from t2i.core.engine import checkpoint
from t2i.core.engine.checkpoint import TrainState
from t2i.core.engine.loader import BatchShard
from t2i.core.engine.reporting import Reporter
from t2i.core.engine.signals import StopRequest
from t2i.core.errors import Interrupted
from t2i.core.interfaces.dataset import Broken, BrokenExample, Dataset
from t2i.core.interfaces.trainer import Stage
from t2i.core.io.processes import everyones
from t2i.core.models.model import Model
from t2i.core.runs.configure import RunConfig
from t2i.core.runs.folder import Run
from t2i.core.runs.record import Log
from t2i.core.settings import ModelConfig


@dataclass(frozen=True)
class Plan:
    """A stage of this run: its number from 0, its settings, and this process's part of its batches."""

    index: int
    stage: Stage
    settings: ModelConfig
    shard: BatchShard


@dataclass
class RunContext:
    """A run as its process sees it.

    Attributes:
        settings: the run's; a stage's own are in its plan.
        plans: one a stage, in order.
        log: RUN/metrics.jsonl.
        broken: the examples that were passed over.
        state: where the run is.
        stop: the signal that came, if one did.
        started: when the run would have begun, had it never been interrupted, on the monotonic clock.
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
    state: TrainState = field(default_factory=TrainState)
    stop: StopRequest = field(default_factory=StopRequest)
    started: float = field(default_factory=time.monotonic)

    @property
    def settings(self) -> ModelConfig:
        return self.config.settings

    @property
    def is_first(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def wall(self) -> float:
        """Seconds that the run has taken, in all its sessions."""
        return time.monotonic() - self.started

    def spend(self, seconds: float) -> None:
        """Counts seconds of the stage's training."""
        self.state.clock += seconds
        self.state.stage_clock += seconds

    def interrupted(self) -> int:
        """The number of the signal that any process received, 0 if none."""
        if self.accelerator.num_processes == 1:
            return self.stop.number
        number = torch.tensor(self.stop.number, device=self.accelerator.device)
        return int(self.accelerator.gather(number[None]).max())

    def stop_here(self, number: int) -> None:
        """Leaves, everything having been saved, because of signal `number`."""
        where = f"step {self.state.step}; 't2i train --resume {self.run.path}' goes on"
        raise Interrupted(f"stopped by {signal_name(number)} at {where}", number)

    def count_broken(self, found: Iterable[BrokenExample]) -> None:
        """Tells and counts what the loaders passed over, of all processes together: all stop where one would."""
        everyone = everyones(list(found), self.accelerator.num_processes)
        self.broken.add([error for own in everyone for error in own])

    def remedy(self, option: str = "") -> str:
        """How to go on after a failure. option: with which the run is to go on."""
        saved, _ = checkpoint.newest(self.run.checkpoints)
        if saved is None:
            return f"no sound checkpoint is left: begin again{option and f' with a lower learning rate, or{option}'}"
        command = f"'t2i train --resume {self.run.path}{option}'"
        return f"the last sound checkpoint is {saved.folder}: {command} goes on from it"


def signal_name(number: int) -> str:
    return signal.Signals(number).name
