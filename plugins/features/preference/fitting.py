"""How HPSv2 fits images of any shape into the square that its network reads."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


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
