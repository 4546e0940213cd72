"""How the judges fit images of any shape into the square that their networks read."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from t2i.plugins.common.images.resize import resized


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
