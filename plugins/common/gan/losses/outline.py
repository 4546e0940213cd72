"""The outline loss: the squared error of what is where. It is ours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

OUTLINE = 8
"""Height and width to which the outline loss averages images, in places."""


def outline_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Compute the squared error between images that are averaged to 8x8 places.

    It tells the generator directly which colours its caption wants where. What fits into a place,
    such as an outline's exact course, is left to the discriminator.

    Args:
        fake: Generated images in [-1, 1], float (B, 3, H, H).
        real: Real images with the same captions, in the same order and of any size.

    Returns:
        The mean over images, channels and places, a scalar.
    """
    return F.mse_loss(F.adaptive_avg_pool2d(fake, OUTLINE), F.adaptive_avg_pool2d(real, OUTLINE))


def with_outline(
    loss: Tensor, losses: dict[str, Tensor], weight: float, fakes: Sequence[Tensor], real: Tensor
) -> Tensor:
    """Add the outline loss to a generator's loss, if it has a weight.

    Args:
        loss: The generator's loss, a scalar.
        losses: The losses that the step reports. "outline" is added.
        weight: Weight of the outline loss. 0: it is left out.
        fakes: The generated images of each scale, float (B, 3, H, H).
        real: Real images with the same captions, in the same order.

    Returns:
        The loss, with the weighted sum over the scales.
    """
    if not weight:
        return loss
    losses["outline"] = torch.stack([outline_loss(fake, real) for fake in fakes]).sum()
    return loss + weight * losses["outline"]
