"""How the judges fit images of any shape into the square that their networks read."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from t2i.plugins.common.images.resize import by_pillow


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


def letterboxed(images: Tensor, side: int) -> Tensor:
    """Resize the longer side of images, bicubic and not rounded, and add black bars.

    Args:
        images: Images, uint8 (B, 3, H, W).
        side: Height and width of the result, pixels.

    Returns:
        The images, float32 (B, 3, side, side), about in [0, 1].
    """
    height, width = images.shape[-2:]
    scale, pixels = side / max(height, width), images.float() / 255
    size = (round(height * scale), round(width * scale))
    if size != (height, width):
        pixels = F.interpolate(pixels, size, mode="bicubic", antialias=True, align_corners=False)
    above, left = (side - size[0]) // 2, (side - size[1]) // 2
    return F.pad(pixels, (left, side - size[1] - left, above, side - size[0] - above))
