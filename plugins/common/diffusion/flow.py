"""The probability flow of a diffusion model, from x_0 to noise and back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from t2i.core.families.schedule import like
from t2i.plugins.common.diffusion.denoiser import Denoiser, Start
from t2i.plugins.common.diffusion.ode import Field


@dataclass(frozen=True)
class Flow:
    """The equation du / dtheta = cos(theta) eps - sin(theta) x_0.

    u = x_t / sqrt(alpha^2 + sigma^2) and theta = arctan(sigma / alpha), so that u is x_0 at theta =
    0. In these coordinates the equation is well conditioned at both ends, for every schedule. It is
    the same as Song et al. 2021, eq. 13.

    Below the least noise that the network knows, s_min, the score is held: for y = u / cos(theta)
    and s = tan(theta), dy / ds = eps(y, s_min) s / s_min. So the flow leads to x_0 itself, and can
    be followed back from there.

    Args:
        denoise: The network.
        least: s_min, sigma / alpha below which the network is not called.
    """

    denoise: Denoiser
    least: float

    def __call__(self, theta: Tensor, u: Tensor) -> Tensor:
        """Compute du / dtheta.

        Args:
            theta: Position of each image, float64 (B,), on the CPU, from 0 to below pi / 2.
            u: Noisy images or latents, float (B, ...).

        Returns:
            The slopes, (B, ...).
        """
        asked = theta.clamp_min(math.atan(self.least))
        cos, sin = _column(theta.cos(), u), _column(theta.sin(), u)
        x_0, eps = self.denoise(u * _column(asked.cos() / theta.cos(), u), asked.tan())
        if bool((asked == theta).all()):
            return cos * eps - sin * x_0
        # With y = x_0 + s_min eps and dy / ds = (s / s_min) eps: du / dtheta is
        # -sin(theta) y + (dy / ds) / cos(theta). Above s_min this is the equation itself.
        y = x_0 + _column(asked.tan(), u) * eps
        held = -sin * y + _column(theta.tan() / asked.tan() / theta.cos(), u) * eps
        return torch.where(_column(theta, u) < math.atan(self.least), held, cos * eps - sin * x_0)


def masked(field: Field, start: Start) -> Field:
    """Hold the part of an image that may not change on its own path.

    Args:
        field: The flow.
        start: The image and its mask.

    Returns:
        The flow; outside the mask it is that of the image and its noise.
    """
    mask, x_0 = start.mask, start.x_0
    if mask is None or x_0 is None:
        return field
    image, noise = x_0, start.noise

    def held(theta: Tensor, u: Tensor) -> Tensor:
        known = _column(theta.cos(), u) * noise - _column(theta.sin(), u) * image
        return torch.where(mask, field(theta, u), known)

    return held


def percent(step_done: Callable[[int, int], None]) -> Callable[[float], None]:
    """Report the progress of a solver, whose number of steps is not known, in percent.

    Args:
        step_done: Receives (percent done, 100).

    Returns:
        A function of the share of the way, 0 to 1.
    """
    return lambda share: step_done(int(100 * share), 100)


def _column(value: Tensor, x: Tensor) -> Tensor:
    """Return one number for each image (B,), to be multiplied with the images."""
    return like(value.to(x.dtype).to(x.device), x)
