"""The log of a stage: mean losses, learning rates and speed since the last line."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from torch import Tensor

from t2i.core.engine.budget import Budget
from t2i.core.engine.context import Plan, RunContext
from t2i.core.engine.reporting import Moving
from t2i.core.engine.status import Status

EVERY = 0.5
"""Seconds between two reports of the progress between log lines."""


class Meter:
    """Sums losses and logs their means.

    Args:
        context: The run.
        plan: The stage.
        budget: The stage's budget, from which the progress and the time left are computed.

    Attributes:
        sums: Sum of each loss since the last line, by name.
        since: Step and training clock (seconds) of the last line.
    """

    def __init__(self, context: RunContext, plan: Plan, budget: Budget) -> None:
        self._context, self._plan, self._budget = context, plan, budget
        self.sums: dict[str, Tensor] = {}
        self.since = (context.state.step, context.state.clock)
        self._losses: Mapping[str, float] = {}
        self._rate: float | None = None
        self._told = float("-inf")
        reporter = context.reporter
        self._moving = reporter if isinstance(reporter, Moving) else None

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of a step, or of one micro-batch of it (`accumulate`).

        Args:
            losses: Scalars by name. They are not read here, which would wait for the device.
        """
        for name, loss in losses.items():
            value = loss.detach() / self._plan.settings.accumulate
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def report(self, learning_rates: Mapping[str, float]) -> dict[str, float]:
        """Write a line of the log and start new sums.

        All processes must call this together; the first one writes the line and reports it.

        Args:
            learning_rates: Learning rate of each optimizer, by name.

        Returns:
            The losses by name, means over steps and processes.
        """
        context, state = self._context, self._context.state
        steps = state.step - self.since[0]
        seconds = state.clock - self.since[1]
        losses = self._means(steps)
        rate = self._pace(steps, seconds)
        self.sums, self.since = {}, (state.step, state.clock)
        if not context.is_first:
            return losses
        name = self._plan.stage.name
        entry = {
            "stage": name,
            "step": state.step,
            "losses": losses,
            "learning_rates": learning_rates,
            "images_per_second": rate,
            "seconds": state.clock,
            "skipped": state.skipped,
        }
        context.log.add(entry)
        self._losses, self._rate = losses, rate
        self._told = time.monotonic()
        context.reporter.status(self._status())
        return losses

    def move(self, first: bool = False) -> None:
        """Report the progress between log lines, if that was not done within the last half second.

        It reads no loss, which would wait for the device: those of the last log line are shown.

        Args:
            first: Whether the stage begins here, or goes on: it is reported at once.
        """
        now = time.monotonic()
        if self._moving is not None and (first or now - self._told >= EVERY):
            self._told = now
            self._moving.moved(self._status())

    def _status(self) -> Status:
        state, budget, rate = self._context.state, self._budget, self._rate
        if rate is None and (steps := state.step - self.since[0]):
            rate = self._pace(steps, state.clock - self.since[1])
        return Status(
            self._plan.stage.name, state.step, budget.of_run(), rate, budget.left(), self._losses,
            self._context.note,
        )  # fmt: skip

    def _pace(self, steps: int, seconds: float) -> float:
        """Return the images per second."""
        return steps * self._plan.shard.total / max(seconds, 1e-9)

    def _means(self, steps: int) -> dict[str, float]:
        if not self.sums:
            return {}
        means = torch.stack([value.float() for value in self.sums.values()]) / max(steps, 1)
        means = self._context.accelerator.reduce(means, "mean").cpu()
        return {name: float(mean) for name, mean in zip(self.sums, means, strict=True)}
