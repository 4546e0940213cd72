"""Images in and out: tensors in [-1, 1], bytes, PNG files and grids."""

from __future__ import annotations

import errno
import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample, Original

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats that are opened: of Pillow's others, some start programs, and none is used for photographs."""

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
)
"""Ends of names of image files, in lower case."""

PIXELS = 2**26
"""Pixels of an image, at most: 200 MB when it is decoded. A small file can claim to hold any number."""

SPARE = 2
"""A JPEG's reduced decoding blurs and aliases a little: with twice the pixels that are needed, what is left of that is
as much as between two good filters (41 dB), with just enough of them six times that (33 dB)."""

_NOT_ITS_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors of the system that say nothing of the file: too many are open, no memory."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""EXIF's orientation -> what makes the image upright."""
_SIDEWAYS = frozenset({5, 6, 7, 8})


def to_tensor(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]. The bytes travel, not the floats."""
    return (
        torch.from_numpy(images)
        .to(device, non_blocking=True)
        .permute(0, 3, 1, 2)
        .float()
        .div_(127.5)
        .sub_(1)
    )


def to_bytes(images: Tensor) -> np.ndarray:
    """float (B, 3, H, W) in [-1, 1] (clamped) -> uint8 (B, H, W, 3), rounded to the nearest level."""
    levels = images.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def decode(
    source: Path | bytes | BinaryIO,
    size: int,
    *,
    box: tuple[int, int, int, int] | None = None,
    where: str,
) -> np.ndarray:
    """An image as uint8 (size, size, 3): the central square of it, or of `box`, resized with antialiasing.

    source: a file of one of FORMATS, by path, content or open. box: left, top, right and bottom in pixels of the
    upright image; what lies outside the image is cut off. where: what errors call it.

    Turned upright by its EXIF orientation, transparency laid on white, samples of 16 bits scaled to 8; colour profiles
    are not applied. A JPEG is decoded at an eighth, a quarter or half of its size where that leaves SPARE times as many
    pixels as are needed.
    BrokenExample if it cannot be read, is no image, or has more than PIXELS pixels.
    """
    with _opened(source, where) as opened:
        width, height = opened.size
        turn = _orientation(opened)
        upright = (width, height) if turn not in _SIDEWAYS else (height, width)
        left, top, side = _square(upright, box, where)
        opened.draft("RGB", _enough(opened.size, size, side))
        image = _turned(_as_rgb(opened), turn)
        x, y = image.width / upright[0], image.height / upright[1]
        area = (left * x, top * y, (left + side) * x, (top + side) * y)
        return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS, area))


@contextmanager
def _opened(source: Path | bytes | BinaryIO, where: str) -> Iterator[Image.Image]:
    """The image, not yet decoded. Whatever goes wrong with it within the block makes it a BrokenExample."""
    try:
        with Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS
        ) as image:
            if image.width * image.height > PIXELS:
                raise BrokenExample(
                    where, f"{image.width} x {image.height} pixels, more than {PIXELS}"
                )
            yield image
    except (BrokenExample, MemoryError):
        raise
    except Exception as error:  # Pillow raises anything at all on damaged and hostile files
        if isinstance(error, OSError) and error.errno in _NOT_ITS_FAULT:
            raise
        raise BrokenExample(where, _reason(source, error)) from None


def _reason(source: Path | bytes | BinaryIO, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if source == b"" or (isinstance(source, Path) and source.stat().st_size == 0):
        return "an empty file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {PIXELS} pixels"
    return f"an image that cannot be read ({type(error).__name__}: {str(error)[:80]})"


def _orientation(image: Image.Image) -> int:
    """How the camera was held (EXIF); upright if that cannot be read, which is no reason to do without the image."""
    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _square(
    extent: tuple[int, int], box: tuple[int, int, int, int] | None, where: str
) -> tuple[float, float, int]:  # fmt: skip
    """Left, top and side of the central square of the box, as far as it lies in the image (width, height)."""
    left, top, right, bottom = box or (0, 0, *extent)
    left, top, right, bottom = (
        max(left, 0),
        max(top, 0),
        min(right, extent[0]),
        min(bottom, extent[1]),
    )
    width, height = right - left, bottom - top
    side = min(width, height)
    if side < 1:
        raise BrokenExample(
            where, f"the box {box} has no part in the image of {extent[0]} x {extent[1]} pixels"
        )
    return left + (width - side) / 2, top + (height - side) / 2, side


def _enough(image: tuple[int, int], size: int, side: int) -> tuple[int, int]:
    """The size to which a whole image may shrink before its square of `side` is resized to `size`."""
    share = min(1.0, SPARE * size / side)
    return math.ceil(image[0] * share), math.ceil(image[1] * share)


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_eight_bits(_sixteen_bits(np.asarray(image)))).convert("RGB")
    if image.has_transparency_data:
        whole = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", whole.size, "white"), whole).convert("RGB")
    return image.convert("RGB")


def _eight_bits(samples: np.ndarray) -> np.ndarray:
    """uint16 -> uint8, white to white, rounded."""
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _sixteen_bits(samples: np.ndarray) -> np.ndarray:
    """Samples of 32 bits that hold values of 16, as Pillow gives some files. ValueError where they hold more: nobody
    can say what is white."""
    if samples.dtype != np.int32 or samples.min() < 0 or samples.max() > 65535:
        raise ValueError("samples of 32 bits, whose range is unknown")
    return samples.astype(np.uint16)


def original(source: Path | bytes, where: str) -> Original:
    """What an image file is, without decoding it. BrokenExample if it is none."""
    with _opened(source, where) as image:
        content = source if isinstance(source, bytes) else source.read_bytes()
        return Original(
            image.width, image.height, image.mode, hashlib.blake2b(content, digest_size=16).digest()
        )


def read_image(path: Path, size: int) -> np.ndarray:
    """An image file as uint8 (size, size, 3): its central square, resized. UserError if it is none."""
    try:
        return decode(path, size, where=str(path))
    except BrokenExample as error:
        raise UserError(f"image {path}: {error.reason}; give a PNG or JPEG file") from None


def png(image: np.ndarray) -> bytes:
    """uint8 (H, W, 3) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def grid(
    images: Sequence[np.ndarray] | np.ndarray, columns: int, *, margin: int = 2, scale: int = 1
) -> np.ndarray:
    """uint8 images (H, W, 3) of one size in rows of `columns` on white, each enlarged `scale` times (nearest)."""
    height, width = images[0].shape[0] * scale, images[0].shape[1] * scale
    rows = -(-len(images) // columns)
    sheet = np.full(
        (rows * (height + margin) + margin, columns * (width + margin) + margin, 3), 255, np.uint8
    )
    for i, image in enumerate(images):
        top = margin + (i // columns) * (height + margin)
        left = margin + (i % columns) * (width + margin)
        sheet[top : top + height, left : left + width] = image.repeat(scale, 0).repeat(scale, 1)
    return sheet


def readable_scale(image_size: int, at_least: int = 96) -> int:
    """How much to enlarge small images so that a person can see them."""
    return max(1, -(-at_least // image_size))
