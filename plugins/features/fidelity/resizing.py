"""The ways in which programs that compute FID resize images for Inception.

FID depends on it: the same images get another score by another way (Parmar et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

SIDE = 299
"""Height and width of Inception's input, in pixels."""

Way = Callable[[Tensor], Tensor]
"""Resizes images, uint8 (B, 3, H, W), to float32 (B, 3, SIDE, SIDE) about from -1 to 1."""


def clean(images: Tensor) -> Tensor:
    """Resize images as clean-fid's mode "clean" does.

    Pillow's bicubic filter with antialiasing, each channel in floating point, not rounded to 8
    bits. The scale is that of TensorFlow's graph.

    Args:
        images: Images, uint8 (B, 3, H, W).

    Returns:
        The images, float32 (B, 3, 299, 299) from -1 to 127 / 128, on the device of `images`.
    """
    channels = images.cpu().numpy().astype(np.float32)
    resized = np.stack([[_bicubic(channel) for channel in image] for image in channels])
    return (torch.from_numpy(resized).to(images.device) - 128) / 128


def _bicubic(channel: np.ndarray) -> np.ndarray:
    """Resize one channel, float32 (H, W), and cut what the filter overshoots."""
    image = Image.fromarray(channel).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image).clip(0, 255)


def pytorch(images: Tensor) -> Tensor:
    """Resize images as pytorch-fid does: bilinear, without antialiasing.

    Args:
        images: Images, uint8 (B, 3, H, W).

    Returns:
        The images, float32 (B, 3, 299, 299) from -1 to 1.
    """
    scaled = images.float() / 255
    return 2 * F.interpolate(scaled, (SIDE, SIDE), mode="bilinear", align_corners=False) - 1


WAYS: Mapping[str, Way] = MappingProxyType({"clean-fid": clean, "pytorch-fid": pytorch})
"""Ways to resize by the name of the program, besides torch-fidelity's own."""
