"""Place names beside the points of a plot so that they do not cover each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

SIZE = 9  # font size, points
DOT = 6  # half the side of the square that a marker takes up, pixels


@dataclass(frozen=True)
class Label:
    """A name for a point.

    Args:
        x: Horizontal place of the point, in data coordinates.
        y: Vertical place of the point, in data coordinates.
        text: The name.
        colour: Colour of the text, as matplotlib takes it.
    """

    x: float
    y: float
    text: str
    colour: str


def put(axes: Axes, labels: Sequence[Label]) -> None:
    """Write labels beside their points.

    Each label goes to the first place around its point where it covers no point and no earlier
    label, and stays inside the figure. If there is no such place, it goes where the covered and
    outside areas are smallest.

    Args:
        axes: The axes, with their limits set.
        labels: The labels, all of whose points are in the plot.
    """
    figure = axes.figure
    assert isinstance(figure, Figure)
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib's methods lack return types
    renderer = canvas.get_renderer()
    figure.draw_without_rendering()
    dots = [axes.transData.transform((label.x, label.y)) for label in labels]
    taken = [Bbox.from_extents(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in dots]
    room = Bbox.from_extents(axes.bbox.x0, axes.bbox.y0, figure.bbox.x1, figure.bbox.y1)
    for label, dot in zip(labels, dots, strict=True):
        written = axes.annotate(
            label.text,
            (label.x, label.y),
            (0, 0),
            textcoords="offset pixels",
            fontsize=SIZE,
            color=label.colour,
        )
        own = written.get_window_extent(renderer)
        places = list(_places(own.width, own.height))
        boxes = [Bbox.from_bounds(dot[0] + x, dot[1] + y, own.width, own.height) for x, y in places]
        costs = [sum(_shared(box, other) for other in taken) + _outside(box, room) for box in boxes]
        best = min(range(len(places)), key=costs.__getitem__)
        written.set_position(places[best])
        taken.append(boxes[best])


def _places(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Yield offsets of a label's lower left corner from its point, in pixels, nearest first."""
    for x in (1.5 * DOT, -1.5 * DOT - width):
        yield x, -height / 2
    for far in range(4):
        up = DOT + far * height
        for x in (DOT, -DOT - width, -width / 2):
            yield x, up
            yield x, -up - height


def _shared(one: Bbox, other: Bbox) -> float:
    """Return the area that two boxes share."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(width, 0) * max(height, 0))


def _outside(box: Bbox, room: Bbox) -> float:
    """Return the area of a box that lies outside the room."""
    return float(box.width * box.height) - _shared(box, room)
