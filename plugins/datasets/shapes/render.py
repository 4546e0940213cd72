"""Rendering of scenes as antialiased images.

The coverage of a pixel is computed from its signed distance to the outline. Lengths are in units of
1/32 of the image's side, so that a scene looks the same at every image size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2i.plugins.datasets.shapes.draws import Draws
from t2i.plugins.datasets.shapes.grammar import Scene, cell_of

Floats = NDArray[np.float32]

UNITS = 32  # lengths below are in units of 1/32 of the image's side
# Centres of columns and of rows. Even the tips of large shapes with jitter stay inside the image.
CELL_CENTRES = (7.5, 16.0, 24.5)
RADII = {"small": 3.5, "large": 5.7}
PALETTE = {
    "red": (0.88, 0.06, 0.08),
    "orange": (1.00, 0.50, 0.00),
    "yellow": (1.00, 0.93, 0.15),
    "green": (0.08, 0.65, 0.15),
    "cyan": (0.10, 0.88, 0.92),
    "blue": (0.12, 0.22, 0.95),
    "purple": (0.55, 0.12, 0.78),
    "pink": (1.00, 0.52, 0.80),
}
BACKGROUND_PALETTE = {
    "black": (0.0, 0.0, 0.0),
    "white": (1.0, 1.0, 1.0),
    "grey": (0.40, 0.40, 0.40),
}

POSITION_JITTER = 0.45  # +-, in units
RADIUS_JITTER = 0.04  # +-, as a fraction of the radius
COLOUR_JITTER = 0.03  # +-, as a fraction of the full range, for each channel

# Every shape is centred on its centre of mass. With these factors, shapes of the same radius look
# about equally large.
SQUARE_HALF_SIDE = 0.88  # times the radius
TRIANGLE_TIP = 1.15  # centre to corner, times the radius
STAR_TIP = 1.16  # centre to outer corner, times the radius
STAR_NOTCH = 0.47  # centre to inner corner, times the distance to the outer corner


@dataclass(frozen=True)
class Placed:
    """One object as it is rendered.

    Args:
        shape: Name of the shape.
        x: Centre, in units from the left.
        y: Centre, in units from the top.
        radius: Radius in units.
        colour: RGB in [0, 1].
    """

    shape: str
    x: float
    y: float
    radius: float
    colour: tuple[float, float, float]


def signed_distance(shape: str, x: Floats, y: Floats, radius: float) -> Floats:
    """Compute the distance of points to the outline of a shape at the origin.

    Near corners it is the distance to the line of the nearest edge.

    Args:
        shape: Name of the shape.
        x: Points, to the right. `x` and `y` broadcast against each other.
        y: Points, downwards.
        radius: Radius, in the unit of `x` and `y`.

    Returns:
        The distances in the same unit, negative inside.

    Raises:
        ValueError: The shape is unknown.
    """
    if shape == "circle":
        return np.sqrt(x * x + y * y) - np.float32(radius)
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - np.float32(SQUARE_HALF_SIDE * radius)
    if shape == "triangle":
        side = np.abs(x) * np.float32(math.sqrt(0.75)) - 0.5 * y
        return np.maximum(y, side) - np.float32(0.5 * TRIANGLE_TIP * radius)
    if shape == "star":
        return _star_distance(x, y, STAR_TIP * radius)
    raise ValueError(f"shape {shape!r} cannot be drawn: name one of circle, square, triangle, star")


def _star_distance(x: Floats, y: Floats, tip: float) -> Floats:
    """Compute the distance to a star.

    All ten edges are alike, so the plane is folded onto the edge from a tip (angle 0) to a notch
    (36 degrees).
    """
    fifth = np.float32(2 * math.pi / 5)
    turns = np.arctan2(x, -y) / fifth
    angle = np.abs(turns - np.rint(turns)) * fifth
    along, across = (
        tip * (STAR_NOTCH * math.cos(math.pi / 5) - 1),
        tip * STAR_NOTCH * math.sin(math.pi / 5),
    )
    length = math.hypot(along, across)
    normal = math.atan2(-along / length, across / length)
    distance: Floats = np.sqrt(x * x + y * y) * np.cos(angle - np.float32(normal)) - np.float32(
        tip * across / length
    )
    return distance


def coverage(shape: str, x: Floats, y: Floats, radius: float) -> Floats:
    """Compute how much of each pixel a shape at the origin covers.

    Args:
        shape: Name of the shape.
        x: Centres of the pixels, in pixels to the right. `x` and `y` broadcast.
        y: Centres of the pixels, in pixels downwards.
        radius: Radius in pixels.

    Returns:
        The covered fraction of each pixel, in [0, 1].
    """
    covered: Floats = np.clip(0.5 - signed_distance(shape, x, y, radius), 0, 1)
    return covered


def place(scene: Scene, draws: Draws) -> tuple[Placed, ...]:
    """Place the objects of a scene, with a slight jitter of place, size and colour.

    Args:
        scene: The scene.
        draws: Random numbers.

    Returns:
        The placed objects.
    """
    placed = []
    for obj in scene.objects:
        row, column = cell_of(obj.position)
        x = CELL_CENTRES[column] + draws.uniform(-POSITION_JITTER, POSITION_JITTER)
        y = CELL_CENTRES[row] + draws.uniform(-POSITION_JITTER, POSITION_JITTER)
        radius = RADII[str(obj.size)] * draws.uniform(1 - RADIUS_JITTER, 1 + RADIUS_JITTER)
        placed.append(Placed(obj.shape, x, y, radius, _jittered(PALETTE[obj.colour], draws)))
    return tuple(placed)


def _jittered(colour: tuple[float, float, float], draws: Draws) -> tuple[float, float, float]:
    """Shift each channel of a colour by a random amount, within [0, 1]."""
    r, g, b = (
        min(1.0, max(0.0, value + draws.uniform(-COLOUR_JITTER, COLOUR_JITTER))) for value in colour
    )
    return r, g, b


def draw(
    objects: Sequence[Placed], background: tuple[float, float, float], image_size: int
) -> NDArray[np.uint8]:
    """Render objects on a plain background; later objects cover earlier ones.

    Args:
        objects: The objects.
        background: RGB in [0, 1].
        image_size: Side of the image in pixels.

    Returns:
        The image, uint8 (image_size, image_size, 3).
    """
    scale = image_size / UNITS
    canvas = np.empty((image_size, image_size, 3), np.float32)
    canvas[:] = background
    for obj in objects:
        x, y, radius = obj.x * scale, obj.y * scale, obj.radius * scale
        reach = 1.2 * radius + 1
        left, top = max(0, int(x - reach)), max(0, int(y - reach))
        window = canvas[top : int(y + reach) + 1, left : int(x + reach) + 1]
        xs = np.arange(window.shape[1], dtype=np.float32) + np.float32(left + 0.5 - x)
        ys = np.arange(window.shape[0], dtype=np.float32) + np.float32(top + 0.5 - y)
        alpha = coverage(obj.shape, xs[None, :], ys[:, None], radius)[:, :, None]
        window += alpha * (np.array(obj.colour, np.float32) - window)
    return (canvas * 255 + 0.5).astype(np.uint8)


def render(scene: Scene, draws: Draws, image_size: int = 32) -> NDArray[np.uint8]:
    """Render a scene, with a slight jitter of its objects and its background's colour.

    Args:
        scene: The scene.
        draws: Random numbers.
        image_size: Side of the image in pixels.

    Returns:
        The image, uint8 (image_size, image_size, 3).
    """
    return draw(
        place(scene, draws), _jittered(BACKGROUND_PALETTE[scene.background], draws), image_size
    )
