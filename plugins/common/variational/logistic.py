"""Discretised logistic distributions of 8-bit images, alone and in mixtures.

Source: Salimans et al. 2017 (PixelCNN++), section 2.1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST_SCALE = -7.0
"""Smallest log scale of a logistic."""

RARE = 1e-5
"""Probability of a level below which its log is that of the density times the width of a level."""

EDGE = 0.999
"""Values beyond +-EDGE are the first or the last level, whose bin is open."""


def discretised_logistic(x: Tensor, mean: Tensor, log_scale: Tensor, levels: int = 256) -> Tensor:
    """Compute the log probability of levels under logistics.

    A level k stands for x = 2 k / (levels - 1) - 1, and for the bin of that width around it. The
    first and the last bin are open to the side.

    Args:
        x: Values in [-1, 1]. Shapes broadcast.
        mean: Means of the logistics.
        log_scale: Logarithms of their scales, at least `LEAST_SCALE`.
        levels: Number of levels.

    Returns:
        The log probabilities, of the broadcast shape: not summed.
    """
    half = 1 / (levels - 1)
    inverse, centred = (-log_scale).exp(), x - mean
    upper, lower, middle = (
        inverse * (centred + half),
        inverse * (centred - half),
        inverse * centred,
    )
    bin_ = torch.sigmoid(upper) - torch.sigmoid(lower)
    density = middle - log_scale - 2 * F.softplus(middle)
    inside = torch.where(
        bin_ > RARE, bin_.clamp_min(1e-12).log(), density - math.log((levels - 1) / 2)
    )
    last = torch.where(x > EDGE, -F.softplus(lower), inside)
    return torch.where(x < -EDGE, upper - F.softplus(upper), last)


def logistic_noise(eps: Tensor) -> Tensor:
    """Turn noise from N(0, 1) into noise from the logistic distribution.

    Args:
        eps: Noise from N(0, 1).

    Returns:
        log(u / (1 - u)) of u = Phi(eps), which is kept within 1e-5 of its ends. 0 gives 0.
    """
    u: Tensor = torch.special.ndtr(eps).clamp(1e-5, 1 - 1e-5)
    return u.log() - (-u).log1p()


class Mixture(NamedTuple):
    """A mixture of K logistics for each pixel, whose green depends on red and blue on both.

    Attributes:
        logits: Logits of the components, float (B, K, H, W).
        means: Means, float (B, 3, K, H, W).
        log_scales: Log scales, float (B, 3, K, H, W).
        coefficients: How much red adds to green, red to blue, and green to blue, in [-1, 1],
            float (B, 3, K, H, W).
    """

    logits: Tensor
    means: Tensor
    log_scales: Tensor
    coefficients: Tensor

    @staticmethod
    def of(parameters: Tensor) -> Mixture:
        """Read the parameters of mixtures off a network's output.

        Args:
            parameters: float (B, 10 K, H, W).

        Returns:
            The mixtures.
        """
        b, channels, h, w = parameters.shape
        k = channels // 10
        rest = parameters[:, k:].reshape(b, 3, 3, k, h, w)  # colour, kind, component
        means, scales, coefficients = rest.unbind(2)
        return Mixture(parameters[:, :k], means, scales.clamp_min(LEAST_SCALE), coefficients.tanh())

    def log_prob(self, x: Tensor, levels: int = 256) -> Tensor:
        """Compute the log probability of each pixel.

        Args:
            x: Images in [-1, 1], float (B, 3, H, W).
            levels: Number of levels of a value.

        Returns:
            The log probabilities, float (B, H, W).
        """
        red, green, _ = x[:, :, None].unbind(1)  # (B, 1, H, W) each
        c = self.coefficients
        shift = torch.stack(
            [torch.zeros_like(c[:, 0]), c[:, 0] * red, c[:, 1] * red + c[:, 2] * green], dim=1
        )
        each = discretised_logistic(x[:, :, None], self.means + shift, self.log_scales, levels)
        return (each.sum(1) + self.logits.log_softmax(1)).logsumexp(1)

    def draw(self, component: Tensor, value: Tensor) -> Tensor:
        """Turn noise into images.

        Args:
            component: Noise from N(0, 1) that chooses components, float (B, K, H, W). Zeros choose
                the most probable one.
            value: Noise from N(0, 1), float (B, 3, H, W). Zeros give the chosen one's mean.

        Returns:
            Images in [-1, 1], float (B, 3, H, W).
        """
        u = torch.special.ndtr(component).clamp(1e-5, 1 - 1e-5)
        chosen = (self.logits - (-u.log()).log()).argmax(1)[:, None, None]
        means, scales, c = (
            t.gather(2, chosen.expand(-1, 3, -1, -1, -1)).squeeze(2)
            for t in (self.means, self.log_scales, self.coefficients)
        )
        free = means + scales.exp() * logistic_noise(value)
        red = free[:, 0].clamp(-1, 1)
        green = (free[:, 1] + c[:, 0] * red).clamp(-1, 1)
        blue = (free[:, 2] + c[:, 1] * red + c[:, 2] * green).clamp(-1, 1)
        return torch.stack([red, green, blue], dim=1)
