"""Images in and out: tensors in [-1, 1], bytes, PNG files and grids."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from t2i.core.errors import UserError


def to_tensor(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]. The bytes travel, not the floats."""
    return torch.from_numpy(images).to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def to_bytes(images: Tensor) -> np.ndarray:
    """float (B, 3, H, W) in [-1, 1] (clamped) -> uint8 (B, H, W, 3), rounded to the nearest level."""
    levels = images.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def read_picture(path: Path, size: int) -> np.ndarray:
    """A picture file as uint8 (size, size, 3): its central square, resized. UserError if it is none."""
    try:
        with Image.open(path) as image:
            whole = ImageOps.exif_transpose(image).convert("RGB")
            return np.asarray(ImageOps.fit(whole, (size, size), Image.Resampling.LANCZOS))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = getattr(error, "strerror", None) or "not a picture that can be read"
        raise UserError(f"picture {path}: {reason}; give a PNG or JPEG file") from None


def png(image: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def grid(images: Sequence[np.ndarray] | np.ndarray, columns: int, *, margin: int = 2, scale: int = 1) -> np.ndarray:
    """uint8 pictures (H, W, 3) of one size in rows of `columns` on white, each enlarged `scale` times (nearest)."""
    height, width = images[0].shape[0] * scale, images[0].shape[1] * scale
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (height + margin) + margin, columns * (width + margin) + margin, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top = margin + (i // columns) * (height + margin)
        left = margin + (i % columns) * (width + margin)
        sheet[top : top + height, left : left + width] = image.repeat(scale, 0).repeat(scale, 1)
    return sheet


def readable_scale(image_size: int, at_least: int = 96) -> int:
    """How much to enlarge small pictures so that a person can see them."""
    return max(1, -(-at_least // image_size))
