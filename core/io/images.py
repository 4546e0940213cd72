"""Conversion of images: files, uint8 arrays, tensors in [-1, 1], PNG and grids.

Only what needs tensors imports torch: the page of `t2i web` reads images before it does.
"""

from __future__ import annotations

import errno
import hashlib
import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from t2i.core.errors import UserError, is_away
from t2i.core.interfaces.dataset import BrokenExample, Original
from t2i.core.io.png_texts import without_long_texts
from t2i.core.io.transparency import opaque

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), "PNG": (".png", ".apng"),
    "WEBP": (".webp",), "GIF": (".gif",), "BMP": (".bmp",), "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"), "AVIF": (".avif",),
}  # fmt: skip
"""File name extensions by Pillow's name of the format."""

FORMATS = tuple(name for name in _ENDINGS if name != "AVIF" or find_spec("PIL._avif"))
"""Image formats that are opened, by Pillow's names. Some of Pillow's others start external
programs, and none of them is used for photographs. AVIF needs Pillow 11.3 or newer."""

SUFFIXES = frozenset(ending for name in FORMATS for ending in _ENDINGS[name])
"""File name extensions of image files that are read, in lower case, with the dot."""

UNREAD_SUFFIXES = (
    frozenset(
        {
            *(ending for endings in _ENDINGS.values() for ending in endings),
            *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".svg", ".psd", ".ico", ".tga"),
            *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".exr", ".hdr"),
        }
    )
    - SUFFIXES
)
"""File name extensions of images that are not read, in lower case, with the dot."""

PIXELS = 2**26
"""Largest number of pixels of an image that is decoded, unless a setting says otherwise. A small
file can claim any size. Pillow keeps 4 bytes of a pixel, which is 270 MB, and as much again where
an image is turned upright or has an unusual mode. Decoders of WebP and AVIF take copies of their
own."""

Fit = Literal["crop", "pad", "squash"]
"""How an image becomes square: its central square is cut out, the whole image is laid on a white
square, or its sides are made equal."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels of the upright image."""

_Area = tuple[float, float, float, float]

SPARE = 2
"""How many times the needed width and height a JPEG must keep when it is decoded at a reduced size.

Reduced decoding blurs and aliases a little. With twice the size that is needed, the result differs
from full decoding as much as two good resizing filters differ from each other (41 dB); with just
the size needed, six times as much (33 dB).
"""

_NOT_ITS_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""System errors for which the file is not to blame: too many open files, not enough memory."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""The transposition that makes an image upright, by its EXIF orientation."""
_SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations for which width and height are exchanged."""


def to_tensor(images: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """Convert uint8 images to a tensor in [-1, 1].

    They are moved to the device as bytes and converted there, which moves a quarter of the data.

    Args:
        images: The images, uint8 (B, H, W, 3).
        device: Where the tensor goes.

    Returns:
        The images, float32 (B, 3, H, W), in [-1, 1].
    """
    import torch

    return (
        torch.from_numpy(images)
        .to(device, non_blocking=True)
        .permute(0, 3, 1, 2)
        .float()
        .div_(127.5)
        .sub_(1)
    )


def to_bytes(images: Tensor) -> np.ndarray:
    """Convert a tensor of images to uint8, rounding to the nearest level.

    Args:
        images: The images, float (B, 3, H, W), in [-1, 1]. Values outside are clamped.

    Returns:
        The images, uint8 (B, H, W, 3).
    """
    import torch

    levels = images.detach().float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
    return levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def decode(
    source: Path | bytes | BinaryIO,
    size: int,
    *,
    box: Box | None = None,
    fit: Fit = "crop",
    max_pixels: int | None = None,
    where: str,
) -> np.ndarray:
    """Decode an image and resize it to a square, with antialiasing (Lanczos).

    The image is turned upright by its EXIF orientation, transparency is laid on white, 16-bit
    channels are scaled to 8 bits. Colour profiles are not applied. A JPEG is decoded at an eighth,
    a quarter or half of its size where that leaves SPARE times the width and height that are
    needed.

    Args:
        source: A file in one of FORMATS: its path, its content, or an open file.
        size: Height and width of the result, in pixels.
        box: Crop to this box before anything else. What lies outside the image is cut off. None for
            the whole image.
        fit: How the image becomes square.
        max_pixels: Largest number of pixels of the file's image. None: PIXELS.
        where: Name of the image in errors.

    Returns:
        The image, uint8 (size, size, 3).

    Raises:
        BrokenExample: It cannot be read, is not an image, has more than `max_pixels` pixels, or the
            box lies outside it.
    """
    with _opened(source, where, max_pixels) as opened:
        width, height = opened.size
        turn = _orientation(opened)
        upright = (width, height) if turn not in _SIDEWAYS else (height, width)
        area = _used(_part(upright, box, where), fit)
        sides = area[2] - area[0], area[3] - area[1]
        needed = max(sides) if fit == "pad" else min(sides)
        opened.draft("RGB", _enough(opened.size, size, needed))
        image = _turned(_as_rgb(opened), turn)
        x, y = image.width / upright[0], image.height / upright[1]
        scaled = (area[0] * x, area[1] * y, area[2] * x, area[3] * y)
        if fit == "pad":
            return _padded(image, scaled, sides, size)
        return np.asarray(_resized(image, (size, size), scaled))


def _padded(image: Image.Image, area: _Area, sides: tuple[float, float], size: int) -> np.ndarray:
    """Resize an area, whose upright width and height are `sides`, and centre it on white."""
    width, height = (max(1, round(side * size / max(sides))) for side in sides)
    square = Image.new("RGB", (size, size), "white")
    resized = _resized(image, (width, height), area)
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return np.asarray(square)


@contextmanager
def _opened(
    source: Path | bytes | BinaryIO, where: str, max_pixels: int | None
) -> Iterator[Image.Image]:
    """Open an image without decoding it; errors within the block become BrokenExample.

    MemoryError and the errors in _NOT_ITS_FAULT are raised as they are.
    """
    most = PIXELS if max_pixels is None else max_pixels
    _allow(most)
    try:
        if isinstance(source, Path) and source.exists() and not source.is_file():
            raise BrokenExample(where, "no regular file")  # opening a pipe would wait for ever
        short = without_long_texts(source)
        with Image.open(
            io.BytesIO(short) if isinstance(short, bytes) else short, formats=FORMATS
        ) as image:
            if image.width * image.height > most:
                raise BrokenExample(where, _too_many(f"{image.width} x {image.height}", max_pixels))
            yield image
    except (BrokenExample, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise BrokenExample(where, _too_many("too many", max_pixels)) from None
    except Exception as error:  # Pillow raises anything at all on damaged and hostile files
        if isinstance(error, OSError) and error.errno in _NOT_ITS_FAULT:
            raise
        away = isinstance(error, OSError) and is_away(error)
        raise BrokenExample(where, _reason(source, error), away) from None


def _allow(pixels: int) -> None:
    """Raise Pillow's own limit to a number of pixels. It is never lowered: threads share it."""
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = pixels


def _too_many(size: str, max_pixels: int | None) -> str:
    """Say that an image has too many pixels, with the setting if there is one."""
    if max_pixels is None:
        return f"{size} pixels, more than {PIXELS}"
    return f"{size} pixels, more than {max_pixels}; the setting data.max_pixels allows more"


def _reason(source: Path | bytes | BinaryIO, error: Exception) -> str:
    """Say in a few words why an image cannot be read."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if source == b"" or (isinstance(source, Path) and _is_empty(source)):
        return "an empty file"
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return f"an image that cannot be read ({type(error).__name__}: {str(error)[:80]})"


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:  # it has gone meanwhile
        return False


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 (upright) if it is missing or cannot be read."""
    if image.format == "TIFF":  # Pillow has applied it already
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _part(extent: tuple[int, int], box: Box | None, where: str) -> Box:
    """Return the part of `box` inside an image of width and height `extent`.

    A box outside the image raises BrokenExample.
    """
    left, top, right, bottom = box or (0, 0, *extent)
    part = max(left, 0), max(top, 0), min(right, extent[0]), min(bottom, extent[1])
    if part[2] <= part[0] or part[3] <= part[1]:
        raise BrokenExample(
            where, f"the box {box} has no part in the image of {extent[0]} x {extent[1]} pixels"
        )
    return part


def _used(part: Box, fit: Fit) -> _Area:
    """Return the area of an image that is used: the central square of `part`, or all of it."""
    left, top, right, bottom = part
    if fit != "crop":
        return part
    width, height = right - left, bottom - top
    side = min(width, height)
    x, y = left + (width - side) / 2, top + (height - side) / 2
    return x, y, x + side, y + side


def _enough(image: tuple[int, int], size: int, side: float) -> tuple[int, int]:
    """Return the smallest size to decode the image at, if `side` pixels of it become `size`."""
    share = min(1.0, SPARE * size / side)
    return math.ceil(image[0] * share), math.ceil(image[1] * share)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB, transparency on white (`opaque`)."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_eight_bits(_sixteen_bits(np.asarray(image)))).convert("RGB")
    if image.has_transparency_data:
        return opaque(image)
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def _resized(image: Image.Image, size: tuple[int, int], area: _Area) -> Image.Image:
    """Resize an area of an RGB image, or of an RGBA image without transparency, to RGB."""
    if image.mode == "RGB":
        return image.resize(size, Image.Resampling.LANCZOS, area)
    bands = [image.getchannel(band).resize(size, Image.Resampling.LANCZOS, area) for band in "RGB"]
    return Image.merge("RGB", bands)


def _eight_bits(samples: np.ndarray) -> np.ndarray:
    """Convert uint16 to uint8, rounded: 65535 becomes 255."""
    return ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _sixteen_bits(samples: np.ndarray) -> np.ndarray:
    """Convert 32-bit pixels with 16-bit values, which Pillow returns for some files, to uint16.

    Other 32-bit pixels raise ValueError, because their white level is unknown.
    """
    if samples.dtype != np.int32 or samples.min() < 0 or samples.max() > 65535:
        raise ValueError("samples of 32 bits, whose range is unknown")
    return samples.astype(np.uint16)


def original(
    source: Path | bytes,
    where: str,
    *,
    box: Box | None = None,
    fit: Fit = "crop",
    max_pixels: int | None = None,
) -> Original:
    """Describe an image file without decoding it.

    Args:
        source: The file's path or its content.
        where: Name of the image in errors.
        box: As for `decode`.
        fit: As for `decode`.
        max_pixels: As for `decode`.

    Returns:
        Its size as stored (not turned upright), mode, a hash of its bytes (BLAKE2b, 16 bytes), and
        the share of the image, or of the box in it, that `decode` cuts off.

    Raises:
        BrokenExample: As `decode`, but damage to the pixels is not found.
    """
    with _opened(source, where, max_pixels) as image:
        content = source if isinstance(source, bytes) else source.read_bytes()
        extent = image.size if _orientation(image) not in _SIDEWAYS else image.size[::-1]
        part = _part(extent, box, where)
        used = _used(part, fit)
        share = (used[2] - used[0]) * (used[3] - used[1])
        return Original(
            image.width,
            image.height,
            image.mode,
            hashlib.blake2b(content, digest_size=16).digest(),
            1 - share / ((part[2] - part[0]) * (part[3] - part[1])),
        )


def read_image(path: Path, size: int) -> np.ndarray:
    """Read an image that the user named, and resize its central square (`decode`).

    Args:
        path: The file.
        size: Height and width of the result, in pixels.

    Returns:
        The image, uint8 (size, size, 3).

    Raises:
        UserError: It cannot be read, or is not an image.
    """
    try:
        return decode(path, size, where=str(path))
    except BrokenExample as error:
        raise UserError(f"image {path}: {error.reason}; give a PNG or JPEG file") from None


def read_whole(path: Path, what: str = "image") -> Image.Image:
    """Read an image that the user named, upright and in its own size.

    Args:
        path: The file.
        what: What the image is; the error message begins with it.

    Returns:
        The image, RGB; transparency is laid on white.

    Raises:
        UserError: It cannot be read, or is not an image.
    """
    try:
        with _opened(path, str(path), PIXELS) as opened:
            whole = _turned(_as_rgb(opened), _orientation(opened))
            return whole if whole.mode == "RGB" else whole.convert("RGB")
    except BrokenExample as error:
        raise UserError(f"{what} {path}: {error.reason}; give a PNG or JPEG file") from None


def png(image: np.ndarray, text: Mapping[str, str] | None = None) -> bytes:
    """Encode an image as PNG.

    Args:
        image: The image, uint8 (H, W, 3).
        text: Texts by keyword, each of which becomes a text chunk: tEXt if it is Latin-1, else
            iTXt. None: no chunks.

    Returns:
        The content of a PNG file.
    """
    chunks = PngInfo()
    for keyword, value in (text or {}).items():
        # A chunk's text ends at the first NUL, and half of a surrogate pair is no text.
        sound = value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
        chunks.add_text(keyword, sound)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def readable_scale(image_size: int, at_least: int = 96) -> int:
    """Return by how much to enlarge small images so that a person can see them.

    Args:
        image_size: Height and width of the images, in pixels.
        at_least: Size that they should reach, in pixels.

    Returns:
        A whole factor, at least 1.
    """
    return max(1, -(-at_least // image_size))
