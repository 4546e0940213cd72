"""Gaussians with diagonal covariance, by mean and log scale."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    """A Gaussian N(mean, exp(2 log_scale)), whose dimensions are independent.

    Attributes:
        mean: Means, float (B, ...).
        log_scale: Logarithms of the standard deviations, of the same shape.
    """

    mean: Tensor
    log_scale: Tensor

    def draw(self, eps: Tensor, temperature: float = 1.0) -> Tensor:
        """Turn noise into a draw.

        Args:
            eps: Noise from N(0, I), of the shape of the mean. Zeros give the mean.
            temperature: Factor of the standard deviations.

        Returns:
            mean + temperature * exp(log_scale) * eps.
        """
        return self.mean + temperature * self.log_scale.exp() * eps

    def log_prob(self, x: Tensor) -> Tensor:
        """Compute the log density of each dimension.

        Args:
            x: Points, of the shape of the mean.

        Returns:
            The log densities, of the same shape: not summed.
        """
        square = ((x - self.mean) * (-self.log_scale).exp()).square()
        return -0.5 * square - self.log_scale - 0.5 * math.log(2 * math.pi)

    def bounded(self, least: float, most: float) -> Gaussian:
        """Clip the log scales, so that a learnt prior cannot collapse towards the posterior.

        Args:
            least: Smallest log scale.
            most: Largest log scale.

        Returns:
            The Gaussian with its log scales in [least, most].
        """
        return Gaussian(self.mean, self.log_scale.clamp(least, most))


def split(parameters: Tensor) -> Gaussian:
    """Take the first half of the channels as means, the second as log scales.

    Args:
        parameters: Output of a network, float (B, 2 C, ...).

    Returns:
        A Gaussian of shape (B, C, ...), in float32 at least: its exponentials need the precision.
    """
    if parameters.dtype in (torch.bfloat16, torch.float16):
        parameters = parameters.float()
    mean, log_scale = parameters.chunk(2, dim=1)
    return Gaussian(mean, log_scale)


def gaussian_kl(q: Gaussian, p: Gaussian) -> Tensor:
    """Compute KL(q || p) of each dimension.

    It is -1/2 + s2 - s1 + (exp(2 s1) + (m1 - m2)^2) / (2 exp(2 s2)) for means m and log scales s.

    Args:
        q: The posterior.
        p: The prior, of the same shape.

    Returns:
        The divergences, of that shape: not summed.
    """
    spread = (2 * (q.log_scale - p.log_scale)).exp()
    distance = ((q.mean - p.mean) * (-p.log_scale).exp()).square()
    return 0.5 * (spread + distance - 1) + p.log_scale - q.log_scale
