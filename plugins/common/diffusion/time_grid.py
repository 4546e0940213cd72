"""The times of a chain, as a noise schedule of their own that diffusers' schedulers accept."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

import torch

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.prediction import Prediction
from t2i.core.families.schedule import DiscreteSchedule, Schedule
from t2i.plugins.common.diffusion.config import DiffusionSamplerConfig, Ending, RespacedConfig
from t2i.plugins.common.diffusion.respacing import respaced

Known = Literal["epsilon", "sample", "v", "velocity"]
"""Kinds of predictions that schedulers are given; "velocity" by those of flow matching only."""

PREDICTION_TYPES: dict[Prediction, str] = {
    "epsilon": "epsilon",
    "sample": "sample",
    "v": "v_prediction",
}
"""Our name of a prediction -> diffusers' name. diffusers knows no others."""

AS: dict[Prediction, Known] = {
    "epsilon": "epsilon", "sample": "sample", "v": "v", "velocity": "v", "score": "epsilon"
}  # fmt: skip
"""Network's prediction -> the prediction that a scheduler is given: the same one, or the nearest
that is well conditioned at both ends of the path."""


@dataclass(frozen=True)
class TimeGrid:
    """Some times of a path, tau_1 < ... < tau_S, as a variance-preserving schedule of S steps.

    diffusers' own spacing takes the gap between two times to be T // S, which is wrong if S does
    not divide T. A schedule whose abar are those of the chosen times is exact for any S and any
    scheduler (Nichol & Dhariwal 2021, equation 19): beta_i = 1 - abar_{tau_i} / abar_{tau_{i-1}}.
    Any path is variance-preserving in u = x_t / norm.

    Args:
        times: The times as the generator's schedule counts them: indexes (int) or real numbers.
        levels: Noise level of each time, 0 (clean) to 1 (noise).
        abar: alpha^2 / norm^2 of each time.
        norms: sqrt(alpha^2 + sigma^2) of each time.
        prediction: Kind of prediction that the scheduler is given.
        final: The abar at which the last step ends; 1 is that of x_0 itself.
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
        """Settings of diffusers' scheduler for this grid.

        They include no clipping: latents have no bounds, and pixels are clamped at the end.
        """
        betas = [1 - after / before for before, after in pairwise([1.0, *self.abar])]
        return {
            "num_train_timesteps": len(self.times),
            "trained_betas": betas,
            "prediction_type": PREDICTION_TYPES[self.prediction],
        }

    def exact(self, scheduler: Any) -> Any:
        """Give a scheduler the betas of this grid in float64.

        diffusers rounds them to float32. Near pure noise beta is almost 1, and 1 - beta is then
        wrong by a thousandth (the last of 1000 steps of the schedule "cosine") or 0.

        Args:
            scheduler: A scheduler that was made with `settings`, and computes no other tables of
                them: DDPMScheduler, DDIMScheduler or DDIMInverseScheduler.

        Returns:
            The same scheduler.
        """
        scheduler.alphas_cumprod = torch.tensor(self.abar, dtype=torch.float64, device="cpu")
        before = torch.cat([scheduler.alphas_cumprod.new_ones(1), scheduler.alphas_cumprod[:-1]])
        scheduler.alphas = scheduler.alphas_cumprod / before
        scheduler.betas = 1 - scheduler.alphas
        return scheduler

    def first(self, steps: int) -> TimeGrid:
        """Return the grid of the least noisy times.

        Args:
            steps: How many, from 0 to all.

        Returns:
            The grid, with the same end.
        """
        return replace(
            self,
            times=self.times[:steps],
            levels=self.levels[:steps],
            abar=self.abar[:steps],
            norms=self.norms[:steps],
        )

    def without_sample(self) -> TimeGrid:
        """Return the grid for schedulers that accept no prediction of x_0.

        Returns:
            The grid, with prediction "epsilon" in place of "sample".
        """
        return replace(self, prediction="epsilon") if self.prediction == "sample" else self


def time_grid(
    generator: DiffusionGenerator, config: DiffusionSamplerConfig, end: Ending = "x_0"
) -> TimeGrid:
    """Choose the times of a chain.

    Args:
        generator: Gives the noise schedule and the kind of prediction.
        config: Gives the number of steps (None: all), their spacing and the highest noise level.
        end: Where the last step ends.

    Returns:
        The grid of the chosen times.

    Raises:
        UserError: The schedule has no such times.
    """
    schedule = generator.schedule
    if isinstance(config, RespacedConfig) and config.respacing is not None:
        times = _respaced(schedule, config.respacing)
    else:
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


def _respaced(schedule: Schedule, respacing: str) -> torch.Tensor:
    """Return the times of a respacing."""
    if not isinstance(schedule, DiscreteSchedule):
        raise UserError(
            f"respacing = {respacing}: this model's noise levels are continuous: leave it out"
        )
    return torch.tensor(respaced(len(schedule), respacing))


def _final(generator: DiffusionGenerator, end: Ending) -> float:
    """Return the abar that a chain ends at.

    "first" is `set_alpha_to_one=False` in diffusers.
    """
    if end == "x_0":
        return 1.0
    if not isinstance(generator.schedule, DiscreteSchedule):
        raise UserError(
            "end = first: this model's noise levels are continuous, there is no first one: use "
            "end=x_0"
        )
    return float(generator.schedule.alphas_cumprod[0])
