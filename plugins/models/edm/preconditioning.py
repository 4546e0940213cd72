"""The scalings around a denoising network, and the noise levels and weights of its training.

D(x; sigma) = c_skip x + c_out F(c_in x; c_noise). Source: Karras et al. 2022, eq. 7 and table 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from t2i.core.families.continuous import VPSchedule
from t2i.plugins.models.edm.config import EDMConfig

LEAST = 2.0**-25
"""Half the distance of two random numbers of `Noise.uniform`: added, none is 0."""

STEPS = 1000
"""Timesteps T of the discrete models whose networks "vp" and "iddpm" scale."""


class Scalings(NamedTuple):
    """The four scalings at some noise levels, (B,) each.

    Attributes:
        skip: c_skip, factor of the noisy image in the denoised one.
        out: c_out, factor of the network's output.
        into: c_in, factor of the network's input.
        noise: c_noise, the number that the network embeds.
    """

    skip: Tensor
    out: Tensor
    into: Tensor
    noise: Tensor


class Preconditioner(ABC):
    """The base class of the four kinds of preconditioning."""

    @abstractmethod
    def scalings(self, sigma: Tensor) -> Scalings:
        """Compute the scalings.

        Args:
            sigma: Noise levels, (B,).

        Returns:
            The scalings, (B,) each.
        """

    @abstractmethod
    def levels(self, u: Tensor) -> Tensor:
        """Turn uniform random numbers into the noise levels to train at.

        Args:
            u: Random numbers, (B,), from 0 to below 1.

        Returns:
            Noise levels, (B,).
        """

    def weight(self, sigma: Tensor) -> Tensor:
        """Compute the weight of the squared error of D. By default 1 / sigma^2, that of the noise.

        Args:
            sigma: Noise levels, (B,).

        Returns:
            Weights, (B,).
        """
        return sigma.square().reciprocal()


class EDM(Preconditioner):
    """The paper's own preconditioning: input, output and gradients have unit variance.

    With c_skip given, c_out^2 = (1 - c_skip)^2 sigma_data^2 + c_skip^2 sigma^2 makes the network's
    target have unit variance. The paper's c_skip = sigma_data^2 / (sigma^2 + sigma_data^2) is the
    one with the smallest c_out; with it the weight is 1 / c_out^2, so that the loss is that of the
    network's output (appendix B.6).

    Args:
        config: Gives sigma_data, sigma_skip, weight_cap, p_mean and p_std.
    """

    def __init__(self, config: EDMConfig) -> None:
        self.data = config.sigma_data
        self.skip = config.sigma_skip or config.sigma_data
        self.cap = config.weight_cap
        self.mean, self.std = config.p_mean, config.p_std

    def scalings(self, sigma: Tensor) -> Scalings:
        total = sigma.square() + self.skip**2
        # c_skip = skip^2 / total, and 1 - c_skip = sigma^2 / total without cancellation.
        out = sigma / total * torch.hypot(sigma * self.data, torch.full_like(sigma, self.skip**2))
        into = torch.rsqrt(sigma.square() + self.data**2)
        return Scalings(self.skip**2 / total, out, into, sigma.log() / 4)

    def levels(self, u: Tensor) -> Tensor:
        """Return log-normal noise levels, by inversion of their distribution function."""
        normal = torch.special.ndtri(u.double() + LEAST)
        levels: Tensor = (self.mean + self.std * normal).exp()
        return levels.to(u.dtype)

    def weight(self, sigma: Tensor) -> Tensor:
        weight = self.data**-2 + sigma.square().reciprocal()
        return weight if self.cap is None else weight.clamp_max(self.cap / self.data**2)


class VP(Preconditioner):
    """The preconditioning of the variance-preserving models of Song et al. 2021."""

    schedule = VPSchedule()
    least = 1e-5  # smallest t of training

    def scalings(self, sigma: Tensor) -> Scalings:
        t = self.schedule.time_of(sigma)
        into = torch.rsqrt(sigma.square() + 1)
        return Scalings(torch.ones_like(sigma), -sigma, into, (STEPS - 1) * t)

    def levels(self, u: Tensor) -> Tensor:
        """Return the noise levels of t that are uniform from 1e-5 to 1."""
        t = 1 + u * (self.least - 1)
        return self.schedule.sigma(t) / self.schedule.alpha(t)


class VE(Preconditioner):
    """The preconditioning of the variance-exploding models of Song et al. 2021.

    Args:
        least: Lowest noise level of training.
        most: Highest noise level of training.
    """

    def __init__(self, least: float, most: float) -> None:
        self.least, self.most = least, most

    def scalings(self, sigma: Tensor) -> Scalings:
        one = torch.ones_like(sigma)
        return Scalings(one, sigma, one, (sigma / 2).log())

    def levels(self, u: Tensor) -> Tensor:
        """Return noise levels whose logarithms are uniform."""
        return self.least * (self.most / self.least) ** u


class IDDPM(Preconditioner):
    """The preconditioning of Nichol & Dhariwal 2021, with their 1000 noise levels."""

    def scalings(self, sigma: Tensor) -> Scalings:
        index = self._nearest(sigma)
        into = torch.rsqrt(sigma.square() + 1)
        noise = (STEPS - 1 - index).to(sigma.dtype)
        return Scalings(torch.ones_like(sigma), -sigma, into, noise)

    def levels(self, u: Tensor) -> Tensor:
        """Return one of the noise levels each."""
        return iddpm_levels()[(u * STEPS).long()].to(u)

    def _nearest(self, sigma: Tensor) -> Tensor:
        """Return the index of the nearest noise level, int64 (B,)."""
        levels = iddpm_levels().to(sigma.device)
        return (sigma.double()[:, None] - levels).abs().argmin(1)


@cache
def iddpm_levels() -> Tensor:
    """Return the noise levels u_0 > ... > u_1000 = 0 of Nichol & Dhariwal 2021, float64 (1001,).

    u_(j-1)^2 = (u_j^2 + 1) / max(abar_(j-1) / abar_j, 0.001) - 1, with their abar_j = sin^2(pi/2 j
    / (1000 (1 + 0.008))). Source: Karras et al. 2022, table 1.

    Returns:
        The levels.
    """
    abar = [math.sin(math.pi / 2 * j / STEPS / 1.008) ** 2 for j in range(STEPS + 1)]
    levels = [0.0]
    for j in range(STEPS, 0, -1):
        ratio = max(abar[j - 1] / abar[j], 0.001)
        levels.append(math.sqrt((levels[-1] ** 2 + 1) / ratio - 1))
    return torch.tensor(levels[::-1], dtype=torch.float64, device="cpu")


def preconditioner(config: EDMConfig) -> Preconditioner:
    """Build the preconditioning that a model's settings name.

    Args:
        config: The settings.

    Returns:
        The preconditioning.
    """
    if config.preconditioning == "edm":
        return EDM(config)
    if config.preconditioning == "ve":
        return VE(config.sigma_min, config.sigma_max)
    return VP() if config.preconditioning == "vp" else IDDPM()
