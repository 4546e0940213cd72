"""The log of a stage: mean losses, learning rates and speed since the last line."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from t2i.core.engine.budget import Budget
from t2i.core.engine.context import Plan, RunContext
from t2i.core.engine.reporting import Status


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
        steps, seconds = state.step - self.since[0], state.clock - self.since[1]
        losses = self._means(steps)
        rate = steps * self._plan.shard.total / max(seconds, 1e-9)
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
        done = self._budget.of_run()
        left = state.clock * (1 - done) / done if done else None
        context.reporter.status(Status(name, state.step, done, rate, left, losses))
        return losses

    def _means(self, steps: int) -> dict[str, float]:
        if not self.sums:
            return {}
        means = torch.stack([value.float() for value in self.sums.values()]) / max(steps, 1)
        means = self._context.accelerator.reduce(means, "mean").cpu()
        return {name: float(mean) for name, mean in zip(self.sums, means, strict=True)}
