"""The exact reader: what an image of `shapes` shows, without a learned network.

It works by analysis by synthesis. The background is the median colour of the image's rim. Pixels
that differ from it form connected pieces. Each piece is compared with templates of every shape at
every radius, sub-pixel place and softness, which the renderer itself draws. The best template names
the piece, unless it leaves too much unexplained or the piece is too blurred.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from t2i.plugins.datasets.shapes.grammar import POSITIONS, SHAPES
from t2i.plugins.datasets.shapes.render import (
    BACKGROUND_PALETTE,
    CELL_CENTRES,
    PALETTE,
    RADII,
    UNITS,
    Floats,
    coverage,
)

MAX_IMAGE_SIZE = 64  # larger images are averaged down to it; they show nothing more
MIN_CONTRAST = 0.22  # smallest RGB distance from the background of a pixel of a piece
MIN_PIECE = 6.0  # square units; smaller pieces are ignored (a small star has 23)
# Largest RGB distance from a named colour. The nearest two colours are 0.455 apart.
MAX_COLOUR_ERROR = 0.22
MAX_BACKGROUND_ERROR = 0.2  # largest RGB distance from a named background
# The misfit of a piece is the fraction of its energy (squared RGB difference from the background)
# that no shape explains, after the energy of pixel noise is subtracted.
MAX_MISFIT = 0.09  # above it the shape is unknown
HOPELESS_MISFIT = 0.35  # above it nothing is known
MAX_NOISE = 0.08  # largest standard deviation of noise that is subtracted, of the full range

# Blur of an object, as a standard deviation in units. A good small generative model may leave as
# much as SOFTNESS. The blurs TOO_SOFT are recognised in order to reject them.
SOFTNESS = (0.0, 0.4, 0.75)
TOO_SOFT = (1.05, 1.5, 2.1, 3.0)
# Radii of the templates in units. A piece that fits the first or the last best is rejected.
RADIUS_STEPS = (2.5, 2.85, 3.2, 3.5, 3.8, 4.2, 4.6, 5.0, 5.4, 5.7, 6.0, 6.5, 7.1)
WINDOW = 9  # units from a piece's centre to the edge of its window
_CHUNK = 128  # pieces that are compared at once; it bounds the memory


@dataclass(frozen=True)
class SeenObject:
    """One piece of an image. A unit is 1/32 of the image's side.

    Args:
        shape: One of SHAPES. None: unknown.
        colour: One of COLOURS. None: unknown.
        size: One of SIZES. None: unknown.
        position: One of POSITIONS. None: the piece cannot be read at all.
        x: Centre, in units from the left.
        y: Centre, in units from the top.
        radius: Radius in units.
        rgb: Colour. The palette is in [0, 1]; a fitted colour may be outside.
        misfit: Unexplained fraction of its energy, in [0, 1].
        softness: Its blur, a standard deviation in units.
    """

    shape: str | None
    colour: str | None
    size: str | None
    position: str | None
    x: float
    y: float
    radius: float
    rgb: tuple[float, float, float]
    misfit: float
    softness: float


@dataclass(frozen=True)
class SeenScene:
    """What the reader sees in an image.

    Args:
        objects: All pieces.
        background: One of BACKGROUNDS. None: another colour.
    """

    objects: tuple[SeenObject, ...]
    background: str | None


def read_scenes(images: NDArray[np.generic]) -> list[SeenScene]:
    """Read what images show.

    Args:
        images: N images, uint8 (N, H, W, 3), or float in [-1, 1]; H = W.

    Returns:
        The N scenes.

    Raises:
        ValueError: The array has another shape or type.
    """
    scaled = as_floats(images)
    backgrounds = _backgrounds(scaled)
    difference = scaled - backgrounds[:, None, None, :]
    noise = _noise(difference)
    pieces = [
        piece for number in range(len(scaled)) for piece in _pieces(difference[number], number)
    ]
    seen: list[list[SeenObject]] = [[] for _ in scaled]
    for start in range(0, len(pieces), _CHUNK):
        chunk = pieces[start : start + _CHUNK]
        for piece, fit in zip(chunk, _fit(chunk, noise, scaled.shape[1]), strict=True):
            seen[piece.image].append(_judge(piece, fit, backgrounds[piece.image], scaled.shape[1]))
    names = [
        _nearest(background, BACKGROUND_PALETTE, MAX_BACKGROUND_ERROR) for background in backgrounds
    ]
    return [SeenScene(tuple(objects), name) for objects, name in zip(seen, names, strict=True)]


def as_floats(images: NDArray[np.generic]) -> Floats:
    """Convert images to floats, and average larger ones down to at most MAX_IMAGE_SIZE pixels.

    Args:
        images: N images, uint8 (N, H, W, 3), or float in [-1, 1]; H = W. NaN counts as -1.

    Returns:
        The images, float32 (N, h, h, 3) in [0, 1].

    Raises:
        ValueError: The array has another shape or type.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(
            f"images of shape {images.shape} cannot be read: give square ones as (N, H, W, 3)"
        )
    if images.dtype == np.uint8:
        scaled = images.astype(np.float32) / np.float32(255)
    elif np.issubdtype(images.dtype, np.floating):
        scaled = (np.nan_to_num(images, nan=-1.0).clip(-1, 1) * 0.5 + 0.5).astype(np.float32)
    else:
        raise ValueError(
            f"images of {images.dtype} cannot be read: give uint8, or floats in [-1, 1]"
        )
    side = scaled.shape[1]
    factor = math.ceil(side / MAX_IMAGE_SIZE)
    if factor == 1:
        return scaled
    whole = side // factor * factor
    blocks = scaled[:, :whole, :whole].reshape(
        len(scaled), side // factor, factor, side // factor, factor, 3
    )
    averaged: Floats = blocks.mean(axis=(2, 4), dtype=np.float32)
    return averaged


def _backgrounds(images: Floats) -> Floats:
    """Return the median colour (N, 3) of each image's rim, which no object reaches."""
    top, bottom, left, right = (
        images[:, 0],
        images[:, -1],
        images[:, :, 0],
        images[:, :, -1],
    )
    colours: Floats = np.asarray(
        np.median(np.concatenate([top, bottom, left, right], axis=1), axis=1), np.float32
    )
    return colours


def _noise(difference: Floats) -> Floats:
    """Return the root mean square (N,) of the pixel noise, estimated from the rim.

    A median would not do: noise on black or white is clipped at one side, so half of it is 0.
    """
    rim = np.concatenate(
        [difference[:, 0], difference[:, -1], difference[:, :, 0], difference[:, :, -1]], axis=1
    )
    energy = np.square(rim).sum(axis=2)
    energy = np.where(energy < MIN_CONTRAST**2, energy, 0)
    noise: Floats = np.minimum(np.sqrt(energy.mean(axis=1) / 3), MAX_NOISE).astype(np.float32)
    return noise


def _nearest(
    colour: Sequence[float] | Floats, palette: dict[str, tuple[float, float, float]], limit: float
) -> str | None:
    """Return the name of the nearest colour, or None if it is farther than `limit`."""
    name = min(palette, key=lambda candidate: math.dist(colour, palette[candidate]))
    return name if math.dist(colour, palette[name]) <= limit else None


# --- pieces ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """A connected piece of image number `image`, in a window around its centre."""

    image: int
    # (2 half, 2 half, 3): the image minus its background; 0 at other pieces and outside the image
    window: Floats
    x: int  # centre of the window, pixels
    y: int
    outside: float  # energy of the piece outside its window
    pixels: int  # number of the window's pixels that are inside the image


def _half(side: int) -> int:
    """Return half the side of a window, in pixels."""
    return math.ceil(WINDOW * side / UNITS)


def _pieces(difference: Floats, number: int) -> list[_Piece]:
    """Return the connected pieces of one image, given its difference from its background."""
    side = len(difference)
    energy = np.square(difference).sum(axis=2)
    labels, count = ndimage.label(energy > MIN_CONTRAST**2, structure=np.ones((3, 3)))
    if not count:
        return []
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    smallest = MIN_PIECE * (side / UNITS) ** 2
    half = _half(side)
    wide, wide_labels = (
        np.pad(difference, ((half, half), (half, half), (0, 0))),
        np.pad(labels, half),
    )
    pieces = []
    for label in np.flatnonzero(areas[1:] >= smallest) + 1:
        weight = np.where(labels == label, energy, 0)
        total = weight.sum()
        x = round(float(weight.sum(axis=0) @ np.arange(0.5, side) / total))
        y = round(float(weight.sum(axis=1) @ np.arange(0.5, side) / total))
        here = np.s_[y : y + 2 * half, x : x + 2 * half]
        mine = (wide_labels[here] == 0) | (wide_labels[here] == label)
        window = np.where(mine[:, :, None], wide[here], 0)
        inside = weight[max(0, y - half) : y + half, max(0, x - half) : x + half].sum()
        height, width = (min(side, at + half) - max(0, at - half) for at in (y, x))
        pieces.append(_Piece(number, window, x, y, float(total - inside), height * width))
    return pieces


# --- fitting --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Templates:
    """Every shape as it may appear in a window of P = 2 half x 2 half pixels: K templates."""

    unit: Floats  # (K, P): coverage, divided by its norm
    norm: Floats  # (K,): norm of the coverage
    shape: NDArray[np.intp]  # (K,): index into SHAPES
    radius: Floats  # (K,): units
    x: Floats  # (K,): centre, in pixels from the window's centre
    y: Floats  # (K,)
    softness: Floats  # (K,): units


@lru_cache(maxsize=4)
def _templates(side: int) -> _Templates:
    """Draw the templates for images of a size."""
    scale, half = side / UNITS, _half(side)
    levels = SOFTNESS + TOO_SOFT
    sharp = [_drawn(half, scale, np.linspace(-0.6, 0.6, 5 if side < 48 else 4)) for _ in SOFTNESS]
    rough = [_drawn(half, scale, np.linspace(-0.5, 0.5, 3)) for _ in TOO_SOFT]
    images, properties = zip(*(sharp + rough), strict=True)
    soft = [
        ndimage.gaussian_filter(drawn, (0, level * scale, level * scale)) if level else drawn
        for drawn, level in zip(images, levels, strict=True)
    ]
    flat = np.concatenate(soft).reshape(sum(map(len, images)), -1)
    norm = np.linalg.norm(flat, axis=1)
    shape, radius, x, y = np.concatenate(properties).T
    softness = np.repeat(np.array(levels, np.float32), [len(drawn) for drawn in images])
    return _Templates(flat / norm[:, None], norm, shape.astype(np.intp), radius, x, y, softness)


def _drawn(half: int, scale: float, shifts: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Draw sharp templates (K, 2 half, 2 half).

    Their properties (K, 4) are the shape, the radius in units, and the shifts by x and y in pixels.
    """
    pixels = np.arange(-half, half, dtype=np.float32) + np.float32(0.5)
    rows = list(itertools.product(range(len(SHAPES)), RADIUS_STEPS, shifts, shifts))
    drawn = [
        coverage(
            SHAPES[shape],
            (pixels - np.float32(x))[None, :],
            (pixels - np.float32(y))[:, None],
            radius * scale,
        )
        for shape, radius, x, y in rows
    ]
    return np.stack(drawn).astype(np.float32), np.array(rows, np.float32)


@dataclass(frozen=True)
class _Fit:
    """The template that explains most of a piece."""

    shape: str
    radius: float  # units
    x: float  # pixels from the window's centre
    y: float
    softness: float  # units
    colour: Floats  # (3,): colour of the object minus that of the background
    misfit: float  # fraction of the energy that is left


def _fit(pieces: Sequence[_Piece], noise: Floats, side: int) -> list[_Fit]:
    """Find the template of each piece with the least squared error, over all colours.

    For a unit template t and the pixels y_c of channel c, the best colour is t.y_c, and the
    template explains the energy sum_c (t.y_c)^2.
    """
    table = _templates(side)
    windows = np.stack([piece.window for piece in pieces]).reshape(len(pieces), -1, 3)
    colours = np.matmul(table.unit, windows)  # (M, K, 3)
    explained = np.square(colours).sum(axis=2)
    best = explained.argmax(axis=1)
    fits = []
    for number, (piece, k) in enumerate(zip(pieces, best, strict=True)):
        of_noise = 3 * piece.pixels * float(noise[piece.image]) ** 2
        energy = float(np.square(windows[number]).sum()) + piece.outside
        left = max(0.0, energy - float(explained[number, k]) - of_noise)
        misfit = left / (left + float(explained[number, k]))
        fits.append(
            _Fit(
                SHAPES[table.shape[k]],
                float(table.radius[k]),
                float(table.x[k]),
                float(table.y[k]),
                float(table.softness[k]),
                colours[number, k] / table.norm[k],
                misfit,
            )
        )
    return fits


def _judge(piece: _Piece, fit: _Fit, background: Floats, side: int) -> SeenObject:
    """Decide what is known of a piece, given its best fit."""
    scale = side / UNITS
    x, y = (piece.x + fit.x) / scale, (piece.y + fit.y) / scale
    red, green, blue = (float(value) for value in background + fit.colour)
    known = fit.misfit <= HOPELESS_MISFIT and fit.softness <= SOFTNESS[-1]
    regular = known and RADIUS_STEPS[0] < fit.radius < RADIUS_STEPS[-1]
    size = "small" if fit.radius < math.sqrt(RADII["small"] * RADII["large"]) else "large"
    return SeenObject(
        shape=fit.shape if regular and fit.misfit <= MAX_MISFIT else None,
        colour=_nearest((red, green, blue), PALETTE, MAX_COLOUR_ERROR) if known else None,
        size=size if regular else None,
        position=_position(x, y) if known else None,
        x=x,
        y=y,
        radius=fit.radius,
        rgb=(red, green, blue),
        misfit=fit.misfit,
        softness=fit.softness,
    )


def _position(x: float, y: float) -> str:
    """Return the name of the cell of the 3x3 grid whose centre is nearest; x and y are in units."""
    row, column = (int(np.abs(np.array(CELL_CENTRES) - at).argmin()) for at in (y, x))
    return POSITIONS[3 * row + column]
