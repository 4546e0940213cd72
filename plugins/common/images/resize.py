"""Resizing of images for feature extractors with published weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def resized(images: Tensor, size: tuple[int, int], mode: Literal["bicubic", "bilinear"]) -> Tensor:
    """Resize images about as Pillow does: antialiased, and rounded to 8 bits.

    A value may differ from Pillow's, which rounds between the two directions too (`by_pillow`).

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


def by_pillow(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images by Pillow itself, bicubic, for scores that must equal those of public code.

    Args:
        images: Images, uint8 (B, 3, H, W). Those that have the size already keep their values.
        size: Height and width of the result.

    Returns:
        The images, uint8 (B, 3, *size), on the device of `images`.
    """
    if tuple(images.shape[-2:]) == size:
        return images
    made = [
        np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BICUBIC))
        for image in images.permute(0, 2, 3, 1).cpu().numpy()
    ]
    return torch.from_numpy(np.stack(made)).permute(0, 3, 1, 2).to(images.device)


def cropped(images: Tensor, side: int, whole: Callable[[float], int] = math.floor) -> Tensor:
    """Resize the shorter side of images by Pillow, bicubic, and keep the square in the middle.

    Args:
        images: Images, uint8 (B, 3, H, W).
        side: Height and width of the result, pixels.
        whole: Rounds the place of the square, where the middle is between two pixels: down, as
            transformers does, or by `round`, as torchvision does.

    Returns:
        The images, float32 (B, 3, side, side) in [0, 1].
    """
    height, width = images.shape[-2:]
    short = min(height, width)
    size = (side * height // short, side * width // short)
    top, left = whole((size[0] - side) / 2), whole((size[1] - side) / 2)
    return by_pillow(images, size)[..., top : top + side, left : left + side].float() / 255
