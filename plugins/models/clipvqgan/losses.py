"""The loss of CLIP-guided VQGAN, and two functions with gradients of their own.

Sources: Crowson et al. 2022, section 3; nerdyrodent/VQGAN-CLIP@592d555, generate.py.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.plugins.models.clipvqgan.config import RegulariserConfig


class Replaced(torch.autograd.Function):
    """The value of one tensor with the gradient of another: straight through."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, source: Tensor) -> Tensor:
        """Return `value`.

        Args:
            ctx: Not used.
            value: The value.
            source: What gets the gradient, of the same shape.

        Returns:
            `value`.
        """
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, Tensor]:
        """Pass the gradient to the second argument.

        Args:
            ctx: Not used.
            *gradients: Gradient of the result.

        Returns:
            Gradients of the arguments.
        """
        return None, gradients[0]


class Bounded(torch.autograd.Function):
    """A clamp to [0, 1] that keeps gradients of a score which lead back into the range.

    A score is climbed. The public code has the loss, which is descended, and so the other sign.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Clamp.

        Args:
            ctx: Keeps `x`.
            x: Any tensor.

        Returns:
            `x`, clamped to [0, 1].
        """
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        """Drop gradients whose ascent would lead further out.

        Args:
            ctx: Has `x`.
            *gradients: Gradient of the score with respect to the result.

        Returns:
            Gradient of the score with respect to `x`.
        """
        (x,) = ctx.saved_tensors
        gradient: Tensor = gradients[0]
        kept: Tensor = gradient * (gradient * (x - x.clamp(0, 1)) <= 0)
        return kept


def nearest(z: Tensor, codes: Tensor) -> Tensor:
    """Quantise latents: the nearest vector in each place, with the gradient of the latents.

    Args:
        z: Latents (B, D, h, w).
        codes: Vectors (K, D).

    Returns:
        Vectors (B, D, h, w).
    """
    rows = z.detach().movedim(1, -1)
    tokens = (codes.square().sum(1) - 2 * rows @ codes.T).argmin(-1)
    quantised: Tensor = Replaced.apply(codes[tokens].movedim(-1, 1), z)
    return quantised


def spherical_distance(u: Tensor, t: Tensor) -> Tensor:
    """Compute half the square of the angle between vectors: 2 arcsin(||u - t|| / 2)^2.

    Args:
        u: Vectors (..., D). They are scaled to length 1.
        t: Vectors (..., D), likewise.

    Returns:
        Distances (...), from 0 to pi^2 / 2.
    """
    chord = (F.normalize(u, dim=-1) - F.normalize(t, dim=-1)).norm(dim=-1)
    return 2 * torch.arcsin(chord / 2).square()


def prompt_loss(distances: Tensor, weight: float, stop: float | None) -> Tensor:
    """Compute a caption's loss: |w| mean(sign(w) d) over cutouts.

    Args:
        distances: Distances of cutouts and caption, (B, n).
        weight: Weight w of the caption. Below 0, images are led away from it.
        stop: Cutouts with sign(w) d below it have no gradient. None: all have one.

    Returns:
        Losses (B,).
    """
    signed = distances if weight > 0 else -distances
    if stop is not None:
        floored: Tensor = Replaced.apply(signed.detach(), signed.clamp_min(stop))
        signed = floored
    return abs(weight) * signed.mean(1)


def total_variation(images: Tensor) -> Tensor:
    """Compute the mean length of the pixels' differences to the right and below.

    The length is the root of the mean over channels. Beyond the edge, the edge is repeated. Source:
    EleutherAI/vqgan-clip@e4c78e7, helpers.py.

    Args:
        images: Images (B, C, H, W).

    Returns:
        The mean of each image, (B,).
    """
    padded = F.pad(images, (0, 1, 0, 1), "replicate")
    right = padded[..., :-1, 1:] - padded[..., :-1, :-1]
    below = padded[..., 1:, :-1] - padded[..., :-1, :-1]
    squares = right.square() + below.square() + 1e-8
    return squares.mean(1).sqrt().mean((1, 2))


def regulariser_weight(config: RegulariserConfig, step: int) -> float:
    """Return the weight of the latents' mean square at a step.

    Args:
        config: Weight and schedule.
        step: Number of the step, from 0.

    Returns:
        The weight, without the factor 1/2.
    """
    if config.schedule == "inverse":
        return config.weight / (2 * step + 1)
    done = min(config.stages, max(0, step - 1) // config.every)
    return config.weight * (1 - done / config.stages)
