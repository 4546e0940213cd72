"""Resizing pictures as feature extractors with published weights want them."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F


def resized(images: Tensor, size: tuple[int, int], mode: Literal["bicubic", "bilinear"]) -> Tensor:
    """Resizes pictures as Pillow does: antialiased, and rounded to 8 bits.

    Args:
        images: uint8 (B, 3, H, W). Pictures that have the size already keep their values.
        size: Height and width of the result.
        mode: The filter.

    Returns:
        float32 (B, 3, *size) in [0, 1].
    """
    pictures = images.float()
    if tuple(images.shape[-2:]) != size:
        pictures = F.interpolate(pictures, size, mode=mode, antialias=True, align_corners=False)
        pictures = pictures.round().clamp(0, 255)
    return pictures / 255
