"""The report's plots, each an SVG that reads at the width of a phone."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from t2i.benchmarks.report import labels
from t2i.benchmarks.report.table import COSTS, cost, number
from t2i.benchmarks.results import Column, Row, Standing
from t2i.core.io.terminal import printable

COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")
GREYS = ("#6b7280", "#d1d5db")  # real images, with their captions and with wrong ones
FEW = 20  # values of a curve that are drawn as points too
_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # names are texts, not formulas
    "svg.fonttype": "none",
    "svg.hashsalt": "t2i",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.edgecolor": "#9ca3af",
    "legend.frameon": False,
}


@contextmanager
def _figure(height: float) -> Iterator[tuple[Axes, list[bytes]]]:
    """Axes to draw on; when the block ends, the list holds the SVG."""
    found: list[bytes] = []
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.2, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_axisbelow(True)
        yield axes, found
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        found.append(buffer.getvalue())


def palette(standings: Sequence[Standing]) -> dict[str, str]:
    """A colour for each line of the ranking; models keep theirs in every plot, whatever their rank."""
    models = sorted(s.name for s in standings if s.kind == "model")
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(models)}
    return {s.name: colours.get(s.name, GREYS[s.kind == "floor"]) for s in standings}


def bars(standings: Sequence[Standing], columns: Sequence[Column]) -> bytes:
    """Scores side by side, a group of bars each; percentages."""
    shown = [c for c in columns if any(s.value(c) for s in standings)]
    colours, width = palette(standings), 0.8 / len(standings)
    with _figure(0.9 + 0.22 * len(shown) * max(2, len(standings))) as (axes, svg):
        for i, standing in enumerate(standings):
            values = [standing.value(c) for c in shown]
            places = [row + (i - (len(standings) - 1) / 2) * width for row in range(len(shown))]
            drawn = axes.barh(
                places, [v.mean if v else 0 for v in values], width * 0.9, label=standing.name,
                color=colours[standing.name],
            )  # fmt: skip
            axes.bar_label(
                drawn, [number(v.mean) if v else "" for v in values], padding=3, fontsize=8
            )
        axes.set_yticks(range(len(shown)), [c.title for c in shown])
        axes.invert_yaxis()
        axes.set_xlim(0, 112)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel("right, %")
        axes.grid(axis="y", visible=False)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9)
    return svg[0]


def quality_against(
    standings: Sequence[Standing], headline: Column, title: str, unit: str
) -> bytes | None:
    """The headline score over a cost, a point a model; None where no model's cost is known."""
    path = dict(COSTS)[title]
    models = [s for s in standings if s.kind == "model"]
    points = [(s, x, v) for s in models if (x := s.cost(*path)) and (v := s.value(headline))]
    if not points:
        return None
    colours = palette(standings)
    with _figure(2.9) as (axes, svg):
        for standing, x, value in points:
            if value.low is not None and value.high is not None:
                axes.plot(
                    [x, x], [value.low, value.high], color=colours[standing.name], lw=1.5, alpha=0.6
                )
            axes.plot(x, value.mean, "o", color=colours[standing.name], ms=8)
        _log_room(axes, title, [x for _, x, _ in points])
        _room_above(axes, headline)
        axes.set_xlabel(unit)
        axes.set_ylabel(headline.title)
        named = [(s, x, v.mean, f"{printable(s.name)} · {cost(title, x)}") for s, x, v in points]
        labels.put(axes, [labels.Label(x, y, text, colours[s.name]) for s, x, y, text in named])
    return svg[0]


def _log_room(axes: Axes, title: str, values: Sequence[float]) -> None:
    """A logarithmic axis with room for the words to the right of the last point."""
    axes.set_xscale("log")
    low, high = min(values), max(values)
    span = max(high / low, 4.0)
    axes.set_xlim(low / span**0.15, low * span**1.6)
    ticks = [low, high] if high > 1.5 * low else [low]
    axes.set_xticks(ticks, [cost(title, tick) for tick in ticks])
    axes.minorticks_off()


def _room_above(axes: Axes, headline: Column) -> None:
    if headline.better == "higher":
        top = max(axes.get_ylim()[1], 1)
        axes.set_ylim(-0.05 * top, 1.08 * top)


def sampler_curves(curves: Mapping[str, Mapping[int, float]], headline: Column) -> bytes:
    """A score over the number of sampling steps, a line a sampler."""
    steps = sorted({count for own in curves.values() for count in own})
    with _figure(3.6) as (axes, svg):
        for i, (name, own) in enumerate(curves.items()):
            style = "o-" if i < len(COLOURS) else "s--"
            axes.plot(
                list(own),
                list(own.values()),
                style,
                ms=4,
                lw=1.3,
                label=name,
                color=COLOURS[i % len(COLOURS)],
            )
        axes.set_xscale("log")
        axes.set_xticks(steps, [str(count) for count in steps])
        axes.minorticks_off()
        axes.set_xlabel("sampling steps")
        axes.set_ylabel(headline.title)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=8)
    return svg[0]


def losses(row: Row) -> dict[str, tuple[list[float], list[float]]]:
    """Of each loss in a row's log: minutes and values. Those of several stages are told apart by the stage's name."""
    stages = list(dict.fromkeys(str(line.get("stage", "")) for line in row.curve))
    found: dict[str, tuple[list[float], list[float]]] = {}
    for line in row.curve:
        own: Any = line.get("losses")
        if not isinstance(own, Mapping) or not isinstance(line.get("seconds"), int | float):
            continue
        prefix = f"{line.get('stage')}: " if len(stages) > 1 else ""
        for name, value in own.items():
            if isinstance(value, int | float):
                minutes, values = found.setdefault(printable(prefix + name), ([], []))
                minutes.append(line["seconds"] / 60)
                values.append(float(value))
    return found


def training_curve(row: Row) -> bytes | None:
    """A row's losses over minutes of training; None where there is no log."""
    found = losses(row)
    if not found:
        return None
    with _figure(3.0) as (axes, svg):
        for i, (name, (minutes, values)) in enumerate(found.items()):
            dots = "o" if len(values) < FEW else None  # of a single value there is no line to see
            axes.plot(
                minutes,
                values,
                lw=1.3,
                marker=dots,
                ms=3,
                label=name,
                color=COLOURS[i % len(COLOURS)],
            )
        every = [value for _, values in found.values() for value in values]
        if min(every) > 0 and max(every) > 20 * min(every):
            axes.set_yscale("log")
        axes.set_xlabel("minutes of training")
        axes.set_ylabel("loss")
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8)
    return svg[0]
