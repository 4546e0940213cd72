"""Noise schedules of diffusion models: x_t = alpha(t) x_0 + sigma(t) eps, and the three things a network may predict.

Letters as in DDPM (Ho et al. 2020): alpha(t) here is the paper's sqrt(abar_t), sigma(t) its sqrt(1 - abar_t).
v is that of Salimans & Ho 2022, eq. in section 4: v = alpha eps - sigma x_0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

Prediction = Literal["epsilon", "sample", "v"]


class Schedule(ABC):
    """x_t = alpha(t) x_0 + sigma(t) eps. `t` is a (B,) tensor; both return (B,) float tensors on its device.

    discrete: t is an index 0..T-1 (long); otherwise t is the noise level sigma itself (float).
    variance_preserving: alpha^2 + sigma^2 = 1, as diffusers' schedulers assume.
    """

    discrete: bool
    variance_preserving: bool

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor: ...

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor: ...

    def time_of(self, ratio: Tensor) -> Tensor:
        """The times (B,) at which sigma / alpha is `ratio` (B,)."""
        raise NotImplementedError


class DiscreteSchedule(Schedule):
    """A DDPM schedule of T steps, from its betas (T,), each in (0, 1)."""

    discrete = True
    variance_preserving = True

    def __init__(self, betas: Tensor) -> None:
        betas = betas.double()
        if betas.dim() != 1 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError("betas must be a vector of numbers between 0 and 1")
        self.betas = betas.float()
        self.alphas_cumprod = torch.cumprod(1 - betas, 0)
        self._alpha = self.alphas_cumprod.sqrt().float()
        self._sigma = (1 - self.alphas_cumprod).sqrt().float()

    def __len__(self) -> int:
        return len(self.betas)

    def alpha(self, t: Tensor) -> Tensor:
        return self._alpha.to(t.device)[t]

    def sigma(self, t: Tensor) -> Tensor:
        return self._sigma.to(t.device)[t]

    @classmethod
    def named(cls, name: str, steps: int = 1000) -> DiscreteSchedule:
        """linear (DDPM: 1e-4..0.02), scaled_linear (LDM: 0.00085..0.012), cosine (Nichol & Dhariwal 2021, eq. 17).

        The linear end points are those of T = 1000; for another T they scale so that abar_T stays the same.
        """
        scale = 1000 / steps
        if name == "linear":
            return cls(torch.linspace(1e-4 * scale, 0.02 * scale, steps, dtype=torch.float64, device="cpu"))
        if name == "scaled_linear":
            roots = torch.linspace(
                (0.00085 * scale) ** 0.5, (0.012 * scale) ** 0.5, steps, dtype=torch.float64, device="cpu"
            )
            return cls(roots**2)
        if name == "cosine":
            abar = [math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)]
            betas = [min(1 - after / before, 0.999) for before, after in pairwise(abar)]
            return cls(torch.tensor(betas, dtype=torch.float64, device="cpu"))
        raise ValueError(f"no noise schedule is named '{name}'; known: linear, scaled_linear, cosine")


class MixingSchedule(Schedule):
    """x_t = (1 - t) x_0 + t eps, for noise levels t from 0 to 1 (cold diffusion's and rectified flow's path)."""

    discrete = False
    variance_preserving = False

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t


def named_schedule(name: str, steps: int = 1000) -> Schedule:
    """ "mixing", or one of DiscreteSchedule.named."""
    return MixingSchedule() if name == "mixing" else DiscreteSchedule.named(name, steps)


def like(value: Tensor, x: Tensor) -> Tensor:
    return value.to(x.dtype).view(-1, *[1] * (x.dim() - 1))


def add_noise(schedule: Schedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """x_t = alpha(t) x_0 + sigma(t) eps (DDPM eq. 4; thesis 2.23)."""
    return like(schedule.alpha(t), x_0) * x_0 + like(schedule.sigma(t), x_0) * eps


def target(schedule: Schedule, prediction: Prediction, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """What the network is to predict: eps, x_0, or v = alpha(t) eps - sigma(t) x_0."""
    if prediction == "epsilon":
        return eps
    if prediction == "sample":
        return x_0
    return like(schedule.alpha(t), x_0) * eps - like(schedule.sigma(t), x_0) * x_0


def predicted_x_0(schedule: Schedule, prediction: Prediction, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
    """x_0 as implied by a network's output at x_t."""
    if prediction == "sample":
        return output
    alpha, sigma = like(schedule.alpha(t), x_t), like(schedule.sigma(t), x_t)
    if prediction == "epsilon":
        return (x_t - sigma * output) / alpha
    # v = alpha eps - sigma x_0 and x_t = alpha x_0 + sigma eps give (alpha^2 + sigma^2) x_0 = alpha x_t - sigma v.
    return (alpha * x_t - sigma * output) / (alpha**2 + sigma**2)
