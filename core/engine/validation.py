"""The losses of held-out examples: always the same examples, with the same noise and timesteps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from itertools import islice
from statistics import fmean, stdev

import torch

from t2i.core.engine.batches import GALLERY, BatchMaker
from t2i.core.engine.budget import Budget
from t2i.core.engine.context import Plan, RunContext
from t2i.core.engine.loader import BatchShard, HostBatch, Views
from t2i.core.engine.local import LocalEngine
from t2i.core.engine.preparing import PreparedStage
from t2i.core.engine.previews import sound_ones
from t2i.core.engine.scores import VALIDATION, Score
from t2i.core.interfaces.dataset import Dataset
from t2i.core.interfaces.strata import STRATA
from t2i.core.interfaces.trainer import Batch
from t2i.core.interfaces.visits import Visit

GROUP = STRATA
"""Examples that are passed to the trainer at once: one for each stratum of the timesteps."""

GROUPS = 16
"""Groups, whose means are the observations of the interval."""


class Validation:
    """Computes the losses of held-out examples (`Trainer.validation`).

    Args:
        context: The run.
        plan: The stage.
        prepared: The stage's networks.
        budget: The stage's budget, for the progress that some losses depend on.
        held: The data that is not trained on.
        held_out: Whether that is so. False: the data set has one split, so it is trained on.
    """

    def __init__(
        self,
        context: RunContext,
        plan: Plan,
        prepared: PreparedStage,
        budget: Budget,
        held: Dataset,
        held_out: bool,
    ) -> None:
        self._context, self._plan, self._prepared, self._budget = context, plan, prepared, budget
        self._held, self._whose = held, "held-out" if held_out else "training"
        # A maker of its own: what training keeps of its captions must not depend on validation.
        self._maker = BatchMaker(prepared, plan.settings)
        self.examples = GROUP * GROUPS

    @cached_property
    def _groups(self) -> list[HostBatch]:
        """The examples in groups, read once."""
        settings = self._plan.settings
        examples = list(islice(sound_ones(self._held), GROUP * GROUPS))
        views = Views(examples, settings.seed, settings.image_size, settings.augment)
        rows = [range(at, min(at + GROUP, len(examples))) for at in range(0, len(examples), GROUP)]
        return [views[[Visit(0, row) for row in group]] for group in rows if len(group) > 1]

    def scores(self) -> dict[str, Score]:
        """Compute the losses, with intervals over groups of examples.

        The networks must be in evaluation mode with their averaged weights.

        Returns:
            The losses by name, "validation." before it. Empty if the trainer has none.
        """
        trainer = self._prepared.trainer
        engine = LocalEngine(
            trainer, self._plan.settings, progress=self._budget.progress(), updates=False
        )
        found: dict[str, list[float]] = {}
        with torch.no_grad():
            for number, group in enumerate(self._groups):
                with self._autocast():
                    losses = trainer.validation(self._batch(number, group), engine)
                if not losses:
                    return {}
                for name, loss in losses.items():
                    found.setdefault(name, []).append(float(loss))
        return {VALIDATION + name: self._score(name, values) for name, values in found.items()}

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        precise = self._plan.settings.precision == "no"
        autocast: torch.autocast | nullcontext[None] = (
            nullcontext() if precise else self._context.accelerator.autocast()
        )
        return autocast

    def _batch(self, number: int, group: HostBatch) -> Batch:
        batch = self._maker.make(group, GALLERY, BatchShard(len(group.captions)))
        return replace(batch, noise=batch.noise.scope(f"validation-{number}"))

    def _score(self, name: str, values: Sequence[float]) -> Score:
        count = sum(len(group.captions) for group in self._groups)
        title = f"{name} of {count} {self._whose} examples"
        return Score(fmean(values), mean_interval(values), count, False, title)


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Compute the 95 % confidence interval of a mean by Student's t.

    Args:
        values: Independent observations.

    Returns:
        The interval (low, high). None if there are fewer than 2 observations, or one is not finite.
    """
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half
