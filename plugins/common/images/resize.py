"""Resizing of images for feature extractors with published weights."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F


def resized(images: Tensor, size: tuple[int, int], mode: Literal["bicubic", "bilinear"]) -> Tensor:
    """Resize images as Pillow does: antialiased, and rounded to 8 bits.

    Args:
        images: Images, uint8 (B, 3, H, W). Those that have the size already keep their values.
        size: Height and width of the result.
        mode: The filter.

    Returns:
        The images, float32 (B, 3, *size) in [0, 1].
    """
    images = images.float()
    if tuple(images.shape[-2:]) != size:
        images = F.interpolate(images, size, mode=mode, antialias=True, align_corners=False)
        images = images.round().clamp(0, 255)
    return images / 255


def cropped(images: Tensor, side: int) -> Tensor:
    """Resize the shorter side of images, bicubic as Pillow does, and keep the square in the middle.

    Args:
        images: Images, uint8 (B, 3, H, W).
        side: Height and width of the result, pixels.

    Returns:
        The images, float32 (B, 3, side, side) in [0, 1].
    """
    height, width = images.shape[-2:]
    short = min(height, width)
    size = (side * height // short, side * width // short)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return resized(images, size, "bicubic")[..., top : top + side, left : left + side]
