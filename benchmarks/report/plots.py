"""The plots of the report, each an SVG that is readable at the width of a phone."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from matplotlib.axes import Axes

from t2i.benchmarks.report import labels
from t2i.benchmarks.report.canvas import PAPER, figure_of, legend, logarithmic
from t2i.benchmarks.report.looks import INK, REAL, look_at, look_of, look_of_row
from t2i.benchmarks.report.table import COSTS, cost, number
from t2i.benchmarks.results import Column, Row, Standing
from t2i.core.io.terminal import printable

SMALLEST = 1e-9  # costs below have no place on a logarithmic axis
LONGEST_NAME = 48  # characters of a name in a plot
FEW = 20  # curves with fewer values show each value as a point
MOST_CURVES = 24  # most curves of one plot; a reader tells no more apart
MOST_POINTS = 2000  # most points of one curve; a screen shows no more
MOST_LINES = 12  # most lines of the ranking in one plot of bars; more are read in the table
FEWEST_POINTS = 3  # fewest models of a scatter plot; fewer show nothing that the table does not
MOST_LABELLED = 8  # most points with a name beside them; more have a legend
ALIKE = 1.05  # costs within this factor of each other are equal: nothing to plot against
Drawn = TypeVar("Drawn")


def _few(curves: Mapping[str, Drawn], axes: Axes) -> list[tuple[str, Drawn]]:
    """Return the first MOST_CURVES curves; the title says if there are more."""
    if len(curves) > MOST_CURVES:
        axes.set_title(
            f"the first {MOST_CURVES} of {len(curves)} curves", loc="right", fontsize=8, y=-0.28
        )
    return list(itertools.islice(curves.items(), MOST_CURVES))


def _thinned(values: list[float]) -> list[float]:
    """Return every k-th value: at most MOST_POINTS."""
    return values[:: -(-len(values) // MOST_POINTS)] if values else values


def bars(standings: Sequence[Standing], columns: Sequence[Column]) -> bytes:
    """Plot percentages as bars, a group of bars for each score.

    Args:
        standings: The lines of the ranking, a bar in each group; at least one.
        columns: The scores, percentages. Those that no line has are left out.

    Returns:
        The SVG, of the first MOST_LINES lines.
    """
    standings = standings[:MOST_LINES]
    width = 0.8 / len(standings)
    shown = [c for c in columns if any(s.value(c) for s in standings)]
    with figure_of(0.6 + 0.16 * len(shown) * max(2, len(standings))) as (axes, svg):
        for i, standing in enumerate(standings):
            values = [standing.value(c) for c in shown]
            look = look_of_row(standing.kind, standing.name)
            places = [row + (i - (len(standings) - 1) / 2) * width for row in range(len(shown))]
            drawn = axes.barh(
                places, [v.mean if v else 0 for v in values], width * 0.9,
                label=_shortened(standing.name), color=look.colour, hatch=look.hatch,
            )  # fmt: skip
            axes.bar_label(
                drawn, [number(v.mean) if v else "" for v in values], padding=3, fontsize=7
            )
        axes.set_yticks(range(len(shown)), [_shortened(c.title) for c in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(0, 112)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel("right, %")
        axes.grid(axis="y", visible=False)
        legend(axes)
    return svg[0]


def quality_against(
    standings: Sequence[Standing], headline: Column, title: str, unit: str
) -> bytes | None:
    """Plot the headline score over a cost, with a point for each model.

    Args:
        standings: The lines of the ranking; rows of real images are left out.
        headline: The score.
        title: Title of the cost, one of those in `COSTS`. The axis is logarithmic.
        unit: Label of the cost's axis.

    Returns:
        The SVG; None if fewer than FEWEST_POINTS models have both the cost and the score, or if
        their costs are all alike.
    """
    path = dict(COSTS)[title]
    models = [s for s in standings if s.kind == "model"]
    points = [
        (s, x, v)
        for s in models
        if (x := s.cost(*path)) and x > SMALLEST and (v := s.value(headline))
    ]
    costs = [x for _, x, _ in points]
    if len(points) < FEWEST_POINTS or max(costs) < ALIKE * min(costs):
        return None
    crowded = len(points) > MOST_LABELLED
    with figure_of(2.9) as (axes, svg):
        for standing, x, value in points:
            look = look_of(standing.name)
            if value.low is not None and value.high is not None:
                axes.plot([x, x], [value.low, value.high], color=look.colour, lw=1.5, alpha=0.6)
            axes.plot(
                x, value.mean, look.marker, color=look.colour, ms=8, label=_shortened(standing.name)
            )
        _log_room(axes, title, costs)
        _room_above(axes, headline)
        axes.set_xlabel(unit)
        axes.set_ylabel(_shortened(headline.title))
        if crowded:
            legend(axes, 8)
        else:
            named = [(x, v.mean, f"{_shortened(s.name)} · {cost(title, x)}") for s, x, v in points]
            labels.put(axes, [labels.Label(x, y, text, INK) for x, y, text in named])
    return svg[0]


def _log_room(axes: Axes, title: str, values: Sequence[float]) -> None:
    """Make the horizontal axis logarithmic, with room for labels to the right of the last point."""
    axes.set_xscale("log")
    low, high = min(values), max(values)
    span = max(high / low, 4.0)
    axes.set_xlim(low / span**0.15, low * span**1.6)
    ticks = [low, high] if high > 1.5 * low else [low]
    axes.set_xticks(ticks, [cost(title, tick) for tick in ticks])
    axes.minorticks_off()


def _room_above(axes: Axes, headline: Column) -> None:
    """Start the vertical axis at 0 and leave room at the top, if higher scores are better."""
    if headline.better == "higher":
        top = max(axes.get_ylim()[1], 1)
        axes.set_ylim(-0.05 * top, 1.08 * top)


def sampler_curves(curves: Mapping[str, Mapping[int, float]], headline: Column) -> bytes:
    """Plot a score over the number of sampling steps, with a line for each sampler.

    Args:
        curves: Sampler -> number of steps -> score.
        headline: The score's column.

    Returns:
        The SVG.
    """
    steps = sorted({count for own in curves.values() for count in own})
    with figure_of(3.1) as (axes, svg):
        for name, own in _few(curves, axes):
            look = look_of(name)
            axes.plot(
                list(own), list(own.values()), look.line, marker=look.marker, ms=4, lw=1.3,
                label=_shortened(name), color=look.colour,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks(steps, [str(count) for count in steps])
        axes.minorticks_off()
        axes.set_xlabel("sampling steps")
        axes.set_ylabel(_shortened(headline.title))
        legend(axes, 8)
    return svg[0]


def score_curves(
    scores: Mapping[str, Sequence[tuple[float, float, bool]]],
    marks: Sequence[float],
    headline: Column,
) -> bytes:
    """Plot scores over minutes of training, with the marks of speed runs as dotted lines.

    Args:
        scores: (minutes, score, whether of all captions) of each run, by its name. Scores of all
            captions are filled points.
        marks: The marks.
        headline: The score's column.

    Returns:
        The SVG.
    """
    with figure_of(3.1) as (axes, svg):
        for name, points in _few(scores, axes):
            look = look_of(name)
            minutes, values = [x for x, _, _ in points], [y for _, y, _ in points]
            fills = [look.colour if whole else PAPER for _, _, whole in points]
            axes.plot(minutes, values, look.line, lw=1.3, color=look.colour, label=_shortened(name))
            axes.scatter(
                minutes, values, s=16, c=fills, marker=look.marker, edgecolors=look.colour, zorder=3
            )
        for mark in marks:
            axes.axhline(mark, color=REAL, lw=0.8, ls=":")
        _room_above(axes, headline)
        axes.set_xlabel("minutes of training")
        axes.set_ylabel(_shortened(headline.title))
        legend(axes, 8)
    return svg[0]


def losses(row: Row) -> dict[str, tuple[list[float], list[float]]]:
    """Collect the losses of a row's training log.

    Args:
        row: The row of a model.

    Returns:
        Loss -> (minutes of training, values). If there are several stages, a loss's name starts
        with its stage's.
    """
    stages = list(dict.fromkeys(str(line.get("stage", "")) for line in row.curve))
    found: dict[str, tuple[list[float], list[float]]] = {}
    for line in row.curve:
        own: Any = line.get("losses")
        if not isinstance(own, Mapping) or not isinstance(line.get("seconds"), int | float):
            continue
        prefix = f"{line.get('stage')}: " if len(stages) > 1 else ""
        for name, value in own.items():
            if isinstance(value, int | float):
                minutes, values = found.setdefault(prefix + name, ([], []))
                minutes.append(line["seconds"] / 60)
                values.append(float(value))
    return found


Scored = tuple[float, float, float, float]
"""Minutes of training, a score, and its interval (low, high)."""


def scores(rows: Sequence[Row]) -> dict[str, dict[str, list[Scored]]]:
    """Collect the scores that models had while they were trained.

    Args:
        rows: The rows.

    Returns:
        Title of the score -> name of the row -> its scores over time.
    """
    found: dict[str, dict[str, list[Scored]]] = {}
    for row in rows:
        for line in row.curve:
            if not isinstance(line.get("seconds"), int | float):
                continue
            for score in line.get("scores", {}).values():
                value = float(score["value"])
                low, high = score.get("interval") or (value, value)
                own = found.setdefault(str(score.get("title", "")), {}).setdefault(row.name, [])
                own.append((line["seconds"] / 60, value, low, high))
    return found


def score_bands(curves: Mapping[str, Sequence[Scored]], title: str) -> bytes:
    """Plot a score over minutes of training, with its interval as a band.

    Args:
        curves: The scores of each model, by its name.
        title: Title of the score.

    Returns:
        The SVG.
    """
    with figure_of(2.6) as (axes, svg):
        for name, points in _few(curves, axes):
            look = look_of(name)
            minutes, values, low, high = ([float(p[i]) for p in points] for i in range(4))
            axes.plot(
                minutes, values, look.line, lw=1.3, marker=look.marker, ms=3,
                label=_shortened(name), color=look.colour,
            )  # fmt: skip
            axes.fill_between(minutes, low, high, color=look.colour, alpha=0.15, lw=0)
        axes.set_xlabel("minutes of training")
        axes.set_ylabel(_shortened(title))
        legend(axes, 8)
    return svg[0]


def _shortened(name: str) -> str:
    """Make a name harmless and short enough for a legend."""
    text = printable(name)
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def training_curve(row: Row) -> bytes | None:
    """Plot a row's losses over minutes of training.

    Args:
        row: The row of a model.

    Returns:
        The SVG; None if the row has no training log. The losses' axis is logarithmic if all losses
        are positive and the largest is over 20 times the smallest.
    """
    found = losses(row)
    if not found:
        return None
    with figure_of(2.6) as (axes, svg):
        for i, (name, (minutes, values)) in enumerate(_few(found, axes)):
            minutes, values = _thinned(minutes), _thinned(values)
            look = look_at(i)
            dots = look.marker if len(values) < FEW else None  # one value makes no visible line
            axes.plot(
                minutes, values, look.line, lw=1.3, marker=dots, ms=3, label=_shortened(name),
                color=look.colour,
            )  # fmt: skip
        shown = [value for _, values in found.values() for value in values]
        if min(shown) > 0 and max(shown) > 20 * min(shown):
            axes.set_yscale("log")
            logarithmic(axes.yaxis)
        axes.set_xlabel("minutes of training")
        axes.set_ylabel("loss")
        legend(axes, 8)
    return svg[0]
