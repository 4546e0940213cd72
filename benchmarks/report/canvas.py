"""Figures of the report's plots: their style, their axes' numbers, their legends, and their SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from t2i.benchmarks.report.looks import INK

PAPER, FRAME, GRID = "#ffffff", "#9ca3af", "#e5e7eb"
ROLES = {INK: "var(--ink)", PAPER: "var(--paper)", FRAME: "var(--frame)", GRID: "var(--line)"}
"""Colours of a plot that follow the page into dark mode."""
WIDTH = 4.4  # inches
MOST_COLUMNS = 4  # of a legend
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # a "$" in a name does not start a formula
    "svg.fonttype": "none",
    "svg.hashsalt": "t2i",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "axes.edgecolor": FRAME,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.color": PAPER,
    "legend.frameon": False,
}
_DROPPED = re.compile(
    r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL
)
_STYLED = re.compile(r'(?:style|fill|stroke)="[^"]*"')


@contextmanager
def figure_of(height: float, width: float = WIDTH) -> Iterator[tuple[Axes, list[bytes]]]:
    """Make axes of a new figure.

    Args:
        height: Height without a legend, inches.
        width: Width, inches.

    Yields:
        The axes, and a list that holds the SVG when the block ends.
    """
    found: list[bytes] = []
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        yield axes, found
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        found.append(buffer.getvalue())


def legend(axes: Axes, size: int = 9) -> None:
    """Write the legend above the axes, in as many columns as fit the figure.

    Args:
        axes: The axes, with all that has a label drawn. The figure grows by the legend's height.
        size: Size of the font, points.
    """
    figure = axes.figure
    assert isinstance(figure, Figure)
    canvas: Any = FigureCanvasAgg(figure)  # matplotlib's methods lack return types
    renderer = canvas.get_renderer()
    for columns in range(MOST_COLUMNS, 0, -1):
        written = figure.legend(loc="outside upper center", ncols=columns, fontsize=size)
        box = written.get_window_extent(renderer)
        if columns == 1 or box.width <= 0.98 * figure.bbox.width:
            break
        written.remove()
    figure.set_figheight(figure.get_figheight() + box.height / figure.dpi)


def logarithmic(axis: Axis) -> None:
    """Label an axis that is logarithmic with plain numbers.

    Args:
        axis: The axis, with its scale set.
    """
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def inline(svg: bytes) -> str:
    """Prepare a plot to stand inside a page, in the page's colours.

    Args:
        svg: The SVG, as the functions of `plots` return it.

    Returns:
        The element `<svg>` alone. Ink, paper, frame and grid are the page's variables.
    """
    element = _DROPPED.sub("", svg.decode()).strip()
    return _STYLED.sub(_coloured, re.sub(r"\n\s*", " ", element))


def _coloured(style: re.Match[str]) -> str:
    text = style[0]
    for colour, variable in ROLES.items():
        text = text.replace(colour, variable)
    return text
