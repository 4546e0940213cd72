"""The times of a chain, as a schedule of their own that diffusers' schedulers understand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.prediction import Prediction
from t2i.core.families.schedule import DiscreteSchedule
from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig, Ending

Known = Literal["epsilon", "sample", "v"]

PREDICTION_TYPES: dict[Prediction, str] = {
    "epsilon": "epsilon",
    "sample": "sample",
    "v": "v_prediction",
}
"""Our word for what a network predicts -> diffusers', which knows no others."""

AS: dict[Prediction, Known] = {
    "epsilon": "epsilon", "sample": "sample", "v": "v", "velocity": "v", "score": "epsilon"
}  # fmt: skip
"""What a scheduler is given of each prediction: itself, or the nearest that is well conditioned at both ends."""


@dataclass(frozen=True)
class TimeGrid:
    """Some of a path's times, tau_1 < ... < tau_S, as a variance-preserving schedule of S steps.

    diffusers' own spacing takes the gap between two times to be T // S, which is wrong wherever S does not divide T.
    A schedule whose abar are those of the times chosen is exact for any S and any scheduler (Nichol & Dhariwal 2021,
    eq. 19): beta_i = 1 - abar_{tau_i} / abar_{tau_{i-1}}. And any path is variance-preserving in u = x_t / norm.

    Attributes:
        times: in the numbers of the generator's schedule: indexes (int), or real times.
        levels: how noisy each is, from 0 to 1.
        abar: alpha^2 / norm^2 at each.
        norms: sqrt(alpha^2 + sigma^2) at each.
        prediction: what the scheduler is given.
        final: the abar that the last step leads to, 1 being that of x_0 itself.
    """

    times: tuple[float, ...]
    levels: tuple[float, ...]
    abar: tuple[float, ...]
    norms: tuple[float, ...]
    prediction: Known
    final: float = 1.0

    def __len__(self) -> int:
        return len(self.times)

    @property
    def settings(self) -> dict[str, Any]:
        """Of diffusers' scheduler. Nothing is clipped: latents have no bounds, pixels are clamped in the end."""
        betas = [1 - after / before for before, after in pairwise([1.0, *self.abar])]
        return {
            "num_train_timesteps": len(self.times),
            "trained_betas": betas,
            "prediction_type": PREDICTION_TYPES[self.prediction],
        }

    def without_sample(self) -> TimeGrid:
        """For schedulers that take no prediction of x_0."""
        return replace(self, prediction="epsilon") if self.prediction == "sample" else self


def time_grid(
    generator: DiffusionGenerator, config: DiffusionSamplerConfig, end: Ending = "x_0"
) -> TimeGrid:
    """The grid of `config.steps` of the generator's times (None: all of them).

    Raises:
        UserError: the schedule has no such times.
    """
    schedule = generator.schedule
    times = schedule.times(
        config.steps, spacing=config.spacing, offset=config.steps_offset, most=config.sigma_max
    )
    exact = times.double()
    alpha, sigma = schedule.alpha(exact), schedule.sigma(exact)
    norms = torch.hypot(alpha, sigma)
    return TimeGrid(
        times=tuple(times.tolist()),
        levels=tuple(schedule.level(exact).tolist()),
        abar=tuple((alpha / norms).square().tolist()),
        norms=tuple(norms.tolist()),
        prediction=AS[generator.prediction],
        final=_final(generator, end),
    )


def _final(generator: DiffusionGenerator, end: Ending) -> float:
    """The abar that a chain ends at. "first" is `set_alpha_to_one=False` in diffusers."""
    if end == "x_0":
        return 1.0
    if not isinstance(generator.schedule, DiscreteSchedule):
        raise UserError(
            "end = first: this model's noise levels are continuous, there is no first one: use end=x_0"
        )
    return float(generator.schedule.alphas_cumprod[0])
