"""Resizing images as feature extractors with published weights want them."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F


def resized(images: Tensor, size: tuple[int, int], mode: Literal["bicubic", "bilinear"]) -> Tensor:
    """Resizes images as Pillow does: antialiased, and rounded to 8 bits.

    Args:
        images: uint8 (B, 3, H, W). Images that have the size already keep their values.
        size: Height and width of the result.
        mode: The filter.

    Returns:
        float32 (B, 3, *size) in [0, 1].
    """
    images = images.float()
    if tuple(images.shape[-2:]) != size:
        images = F.interpolate(images, size, mode=mode, antialias=True, align_corners=False)
        images = images.round().clamp(0, 255)
    return images / 255
