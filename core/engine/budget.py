"""The budget of a run, in steps or minutes, and the share of each stage."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from t2i.core.engine.context import RunContext
from t2i.core.interfaces.trainer import Stage


def stage_ends(stages: Sequence[Stage], whole: float) -> list[float]:
    """Divide a budget among stages by their shares.

    Args:
        stages: The stages in order. Their shares need not sum to 1.
        whole: The budget of the run, in steps or seconds.

    Returns:
        Where each stage ends, counted from the beginning of the run, in the unit of `whole`.
    """
    total = sum(stage.share for stage in stages)
    return [
        whole * share / total for share in itertools.accumulate(stage.share for stage in stages)
    ]


FIRST_STEPS = 3
"""Steps of a run after which the time left is estimated, if the budget is in steps."""


class Budget:
    """Measures how much of the budget of a stage and of the run is spent.

    Args:
        context: The run.
        index: Index of the stage.

    Attributes:
        whole: The run's budget: seconds of training if `minutes` is set, else steps.
    """

    def __init__(self, context: RunContext, index: int) -> None:
        settings = context.settings
        self._context = context
        self._by_clock = settings.minutes is not None
        self.whole: float = settings.minutes * 60 if settings.minutes else settings.steps
        self._end = stage_ends([plan.stage for plan in context.plans], self.whole)[index]
        self._later = len(context.plans) - 1 - index

    def progress(self) -> float:
        """Return how much of the stage is done.

        The stage ends at a fixed point of the run's budget. If earlier stages took less or more
        time than their share, this stage gets more or less, so that the whole run keeps its budget.
        Each stage makes at least one step, unless the budget has fewer steps than stages.

        Returns:
            The progress of the stage, 0 to 1.
        """
        state, end = self._context.state, self._end
        if self._by_clock:
            spent, begun = state.stage_clock, state.clock - state.stage_clock
        else:
            spent, begun = state.stage_step, state.step - state.stage_step
            # At least one step, if it leaves one for each stage that follows.
            end = min(max(round(end), begun + 1), int(self.whole) - self._later)
            if end <= begun:
                return 1.0
        return min(1.0, spent / max(end - begun, 1e-9))

    def spent(self) -> bool:
        """Return whether the stage is over.

        With a budget in minutes the first process's clock decides for all processes, which must all
        call this together.

        Returns:
            True if the stage has used its budget.
        """
        over, accelerator = self.progress() >= 1, self._context.accelerator
        if self._by_clock and accelerator.num_processes > 1:
            flag = torch.tensor(float(over), device=accelerator.device)
            over = bool(accelerator.gather(flag[None])[0])
        return over

    def of_run(self) -> float:
        """Return how much of the whole run is done.

        Returns:
            The progress of the run, 0 to 1.
        """
        state = self._context.state
        return min(1.0, (state.clock if self._by_clock else state.step) / self.whole)

    def left(self) -> float | None:
        """Estimate the training time that is left of the run.

        Returns:
            Seconds. None: unknown, because the budget is in steps and the first of them are not
            done.
        """
        state = self._context.state
        if self._by_clock:
            return max(0.0, self.whole - state.clock)
        if state.step < FIRST_STEPS:
            return None
        return state.clock * max(0.0, self.whole - state.step) / state.step
