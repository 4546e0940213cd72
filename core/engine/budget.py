"""The budget of a run, in steps or minutes, and each stage's share of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from t2i.core.engine.context import RunContext
from t2i.core.interfaces.trainer import Stage


def stage_ends(stages: Sequence[Stage], whole: float) -> list[float]:
    """Where each stage ends, of a budget of `whole`, by the stages' shares."""
    total = sum(stage.share for stage in stages)
    return [
        whole * share / total for share in itertools.accumulate(stage.share for stage in stages)
    ]


class Budget:
    """How much of the budget is spent, of one stage and of the run.

    Attributes:
        whole: the run's budget: seconds of training if `minutes` is set, else steps.
    """

    def __init__(self, context: RunContext, index: int) -> None:
        settings = context.settings
        self._context = context
        self._by_clock = settings.minutes is not None
        self.whole: float = settings.minutes * 60 if settings.minutes else settings.steps
        self._end = stage_ends([plan.stage for plan in context.plans], self.whole)[index]

    def progress(self) -> float:
        """How much of the stage is done, 0 to 1. By the clock, the share of what earlier stages left or overran is this
        stage's, so that the whole run keeps its budget."""
        state, end = self._context.state, self._end
        if self._by_clock:
            spent, begun = state.stage_clock, state.clock - state.stage_clock
        else:
            spent, begun, end = state.stage_step, state.step - state.stage_step, round(end)
        return min(1.0, spent / max(end - begun, 1e-9))

    def spent(self) -> bool:
        """Whether the stage is over; the first process's clock decides for all."""
        over, accelerator = self.progress() >= 1, self._context.accelerator
        if self._by_clock and accelerator.num_processes > 1:
            flag = torch.tensor(float(over), device=accelerator.device)
            over = bool(accelerator.gather(flag[None])[0])
        return over

    def of_run(self) -> float:
        """How much of the whole run is done, 0 to 1."""
        state = self._context.state
        return min(1.0, (state.clock if self._by_clock else state.step) / self.whole)
