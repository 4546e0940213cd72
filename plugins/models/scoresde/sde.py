"""The stochastic differential equations of Song et al. 2021: VE, VP and sub-VP.

An equation is dx = f(u) x du + g(u) dw, where the paper's time u goes from 0 (data) to 1 (noise). A
schedule holds its marginals, x = alpha x_0 + sigma eps. The timesteps of VP and sub-VP are u. Those
of VE are sigma itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from t2i.core.families.continuous import SubVPSchedule, VESchedule, VPSchedule
from t2i.core.families.schedule import Schedule
from t2i.plugins.models.scoresde.config import ScoreSDEConfig

RANGE = 2.0
"""Width of the range of images, [-1, 1]. The paper's VE models have data in [0, 1], so that their
sigmas are half of the schedule's."""


def schedule_of(config: ScoreSDEConfig) -> Schedule:
    """Return the schedule of a model's equation, for images in [-1, 1].

    Args:
        config: Settings of the model.

    Returns:
        The schedule. Sigmas of VE are twice those of the settings, which are for images in [0, 1].
    """
    if config.sde == "ve":
        return VESchedule(RANGE * config.sigma_min, RANGE * config.sigma_max)
    kind = VPSchedule if config.sde == "vp" else SubVPSchedule
    return kind(config.beta_0, config.beta_1)


def timestep(schedule: Schedule, u: Tensor) -> Tensor:
    """Return the timesteps of the paper's times.

    Source: Song et al. 2021, eq. 30 for VE: sigma = sigma_min (sigma_max / sigma_min)^u.

    Args:
        schedule: The equation's schedule.
        u: The paper's times, (B,), from 0 to 1.

    Returns:
        Timesteps as the schedule counts them, (B,).
    """
    if isinstance(schedule, VESchedule):
        return schedule.sigma_min * torch.exp(u * _growth(schedule))
    return u


def paper_time(schedule: Schedule, t: Tensor) -> Tensor:
    """Return the paper's times of timesteps, as the inverse of `timestep`.

    Args:
        schedule: The equation's schedule.
        t: Timesteps, (B,).

    Returns:
        The paper's times, (B,).
    """
    if isinstance(schedule, VESchedule):
        return torch.log(t / schedule.sigma_min) / _growth(schedule)
    return t


def drift(schedule: Schedule, t: Tensor) -> Tensor:
    """Compute f(u) = d log alpha / du.

    Args:
        schedule: The equation's schedule.
        t: Timesteps, (B,).

    Returns:
        The factor of x in the drift, (B,).
    """
    return schedule.rates(t)[0] / schedule.alpha(t) * _pace(schedule, t)


def relative_diffusion(schedule: Schedule, t: Tensor) -> Tensor:
    """Compute g(u)^2 / sigma^2 = 2 d log(sigma / alpha) / du.

    It is 2 log(sigma_max / sigma_min) for VE, beta / sigma^2 for VP, and beta (1 + alpha^2) / (1 -
    alpha^2) for sub-VP.

    Args:
        schedule: The equation's schedule.
        t: Timesteps, (B,), above 0.

    Returns:
        The ratios, (B,).
    """
    d_alpha, d_sigma = schedule.rates(t)
    rate = d_sigma / schedule.sigma(t) - d_alpha / schedule.alpha(t)
    return 2 * rate * _pace(schedule, t)


def diffusion(schedule: Schedule, t: Tensor) -> Tensor:
    """Compute g(u).

    Args:
        schedule: The equation's schedule.
        t: Timesteps, (B,), above 0.

    Returns:
        The factors of dw, (B,), for images in [-1, 1].
    """
    return schedule.sigma(t) * relative_diffusion(schedule, t).sqrt()


def _growth(schedule: VESchedule) -> float:
    """Return log(sigma_max / sigma_min)."""
    return math.log(schedule.max_ratio / schedule.sigma_min)


def _pace(schedule: Schedule, t: Tensor) -> Tensor:
    """Return dt / du (B,)."""
    if isinstance(schedule, VESchedule):
        return t * _growth(schedule)
    return torch.ones_like(t)
