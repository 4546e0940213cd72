"""DiffAugment (Zhao et al. 2020): differentiable augmentation of what a discriminator sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.plugins.common.gan.remedies.config import Policy

NUMBERS = 7
"""Random numbers that an image needs."""

SHIFT, HOLE = 1 / 8, 1 / 2
"""Largest shift, and side of the hole, as shares of the image's side."""


def diffaugment(
    images: Tensor, numbers: Tensor, policy: Sequence[Policy], strength: float = 1.0
) -> Tensor:
    """Augment each image in another way.

    "color": brightness + U(-1/2, 1/2), saturation times U(0, 2), contrast times U(1/2, 3/2).
    "translation": a shift of up to 1/8 of the side along each axis, filled with 0. "cutout": a
    square hole of half the side, filled with 0, which may reach over the border.

    Args:
        images: Images in [-1, 1], float (B, 3, H, H).
        numbers: Random numbers from U[0, 1), float (B, `NUMBERS`).
        policy: The parts, which are applied in the order above.
        strength: Factor of all changes. 0: the images stay as they are.

    Returns:
        The images, float (B, 3, H, H), not clamped.
    """
    u = numbers.to(images.dtype)
    if "color" in policy:
        images = _colour(images, strength * (u[:, :3] - 0.5))
    if "translation" in policy:
        images = _shifted(images, strength * (2 * u[:, 3:5] - 1) * SHIFT)
    if "cutout" in policy:
        images = images * _holes(images, u[:, 5:7], strength * HOLE)
    return images


def _colour(images: Tensor, change: Tensor) -> Tensor:
    """Change brightness, saturation and contrast; the changes (B, 3) are from -1/2 to 1/2."""
    brightness, saturation, contrast = change.view(-1, 3, 1, 1, 1).unbind(1)
    images = images + brightness
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (1 + 2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (1 + contrast)


def _shifted(images: Tensor, shares: Tensor) -> Tensor:
    """Shift each image by whole pixels; what comes in is 0."""
    side = images.shape[-1]
    most = int(side * SHIFT + 0.5)
    pixels = (shares * side).round().long().clamp(-most, most)
    padded = F.pad(images, [most] * 4)
    places = torch.arange(side, device=images.device) + most
    rows, columns = places + pixels[:, :1], places + pixels[:, 1:]
    batch = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    moved = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _holes(images: Tensor, centres: Tensor, share: float) -> Tensor:
    """Return a mask (B, 1, H, H) that is 0 in a square whose centre is anywhere in the image."""
    side = images.shape[-1]
    places = torch.arange(side, device=images.device) + 0.5
    inside = (places - centres[:, :, None] * side).abs() < share * side / 2  # (B, 2, H)
    return 1 - (inside[:, 0, :, None] & inside[:, 1, None, :]).to(images.dtype)[:, None]
