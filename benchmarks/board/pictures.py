"""The board's pictures: images of every model, and accuracy over the cost of an image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from t2i.benchmarks.board.entering import strip
from t2i.benchmarks.board.tables import HEADLINE, models, spec_of
from t2i.benchmarks.report.canvas import figure_of, legend, logarithmic
from t2i.benchmarks.report.labels import Label, put
from t2i.benchmarks.report.looks import INK, look_at
from t2i.benchmarks.report.table import number
from t2i.benchmarks.results import Column, Results, Standing
from t2i.benchmarks.run.grids import REAL
from t2i.core.io.sheets import Block, Layout, sheet

COLUMNS = 2
"""Models side by side on the sheet."""

HEIGHT, WIDTH = 5.0, 9.0
"""Height and width of the plot, inches."""

MARKS = (1, 10, 30, 50, 70, 80, 90, 95, 98, 99, 99.5)
"""Marks of the plot's axis of accuracy, percent. Scores beyond the last are drawn at it."""


def images(results: Results) -> np.ndarray:
    """Draw the images of all models for the same captions and noise, the best model first.

    Args:
        results: The board's rows, with their strips in its folder.

    Returns:
        The sheet, uint8 (H, W, 3).
    """
    named = [(REAL, "real images")]
    named += [(s.rows[0].name, _titled(s, results.headline)) for s in models(results)]
    blocks = [
        Block(_split(strip(results.out, row)), title)
        for row, title in named
        if strip(results.out, row).exists()
    ]
    return sheet(blocks, Layout(COLUMNS, len(results.grid), "The same captions and noise"))


def _titled(standing: Standing, headline: Column) -> str:
    value, unit = standing.value(headline), " %" if headline.title.endswith("%") else ""
    return f"{standing.name}: {number(value.mean)}{unit}" if value else standing.name


def _split(file: Path) -> list[np.ndarray]:
    """Read a strip's images."""
    with Image.open(file, formats=("PNG",)) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    side = pixels.shape[0]
    return [pixels[:, left : left + side] for left in range(0, pixels.shape[1], side)]


def quality_by_cost(results: Results) -> bytes:
    """Plot accuracy over the seconds that an image takes, with a look for each family.

    Args:
        results: The board's rows.

    Returns:
        The SVG.
    """
    families = sorted({spec_of(s).family for s in models(results)})
    with figure_of(HEIGHT, WIDTH) as (axes, svg):
        named = []
        for place, family in enumerate(families):
            look, points = look_at(place), _points(results, family)
            if not points:
                continue
            x, y = zip(*(point[:2] for point in points), strict=True)
            axes.plot(x, y, look.marker, color=look.colour, ms=6, label=family)
            named += [Label(x, y, name, INK) for x, y, name in points]
        axes.set_xscale("log")
        logarithmic(axes.xaxis)
        axes.set_yscale("logit")
        axes.set_ylim(MARKS[0] / 100 * 0.8, 1 - 0.8 * (1 - MARKS[-1] / 100))
        axes.set_yticks([mark / 100 for mark in MARKS], [f"{mark:g}" for mark in MARKS])
        axes.set_yticks([], minor=True)
        axes.set_xlabel("seconds an image (one core)")
        axes.set_ylabel(HEADLINE.title)
        legend(axes, 8)
        put(axes, named)
    return svg[0]


def _points(results: Results, family: str) -> list[tuple[float, float, str]]:
    """Return seconds an image, accuracy (a fraction) and name of each model of a family."""
    return [
        (seconds, min(max(value.mean, MARKS[0]), MARKS[-1]) / 100, standing.name)
        for standing in models(results)
        if spec_of(standing).family == family
        and (seconds := standing.cost("sampling", "seconds_per_image"))
        and (value := standing.value(HEADLINE))
    ]
