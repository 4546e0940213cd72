"""Charts of curves as SVG, readable on a phone, in light and dark. No text in them is markup."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from t2i.web.markup import escaped
from t2i.web.watch.history import Point

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 24
"""Margins of the plot in pixels of an unscaled chart."""


@dataclass(frozen=True)
class Line:
    """A curve of a chart.

    Args:
        points: Steps and values.
        kind: Name of its style: "raw" (faint) or "main".
        bands: Lower and upper end of an interval at some steps, each (step, low, high).
        dots: Whether each point is marked.
    """

    points: Sequence[Point]
    kind: str = "main"
    bands: Sequence[tuple[float, float, float]] = ()
    dots: bool = False


def chart(title: str, lines: Sequence[Line], *, log: bool = False, note: str = "") -> str:
    """Draw curves over the steps.

    Args:
        title: Title, any text.
        lines: The curves, the first one at the bottom.
        log: Whether the axis of the values is logarithmic. Values that are not positive have no
            place on it; the chart says how many there are.
        note: A short text behind the title, such as the newest value.

    Returns:
        An HTML figure.
    """
    kept, lost = _kept(lines, log)
    heading = f"<figcaption><b>{escaped(title)}</b> <span>{escaped(note)}</span></figcaption>"
    values = [value for line in kept for _, value in line.points]
    values += [end for line in kept for _, *ends in line.bands for end in ends]
    steps = [step for line in kept for step, _ in line.points]
    if not steps:
        text = "no positive values: choose the linear axis" if lost else "no values yet"
        return f'<figure class="t2i-chart">{heading}<p>{text}</p></figure>'
    below = f"<p>{lost} values are not positive: not shown</p>" if lost else ""
    ticks = log_ticks(min(values), max(values)) if log else linear_ticks(min(values), max(values))
    low, high = min(*values, *ticks), max(*values, *ticks)
    place = math.log10 if log else float
    y = _scale(place(low), place(high), HEIGHT - BOTTOM, TOP)
    x = _scale(min(steps), max(steps), LEFT, WIDTH - RIGHT)
    marks = [_y_tick(tick, y(place(tick))) for tick in ticks]
    marks += [_x_tick(tick, x(tick)) for tick in linear_ticks(min(steps), max(steps), 4)
              if min(steps) <= tick <= max(steps)]  # fmt: skip
    drawn = [_curve(line, x, lambda value: y(place(value))) for line in kept]
    label = escaped(f"{title} by step, {note}" if note else f"{title} by step")
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(marks)}{''.join(drawn)}</svg>"
    )
    return f'<figure class="t2i-chart">{heading}{svg}{below}</figure>'


def _kept(lines: Sequence[Line], log: bool) -> tuple[list[Line], int]:
    """Leave out what has no place on the axis; return the number of points that are left out."""
    if not log:
        return list(lines), 0
    kept = [
        Line([point for point in line.points if point[1] > 0], line.kind,
             [band for band in line.bands if band[1] > 0], line.dots)
        for line in lines
    ]  # fmt: skip
    return kept, sum(len(a.points) - len(b.points) for a, b in zip(lines, kept, strict=True))


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Return the map from [low, high] to pixels. A single value lies in the middle."""
    extent = high - low
    if not extent > 0:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / extent * (end - start)


def _curve(line: Line, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    places = [(x(step), y(value)) for step, value in line.points]
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    drawn = f'<polyline class="{line.kind}" points="{path}"/>'
    if line.dots or len(places) == 1:
        drawn += "".join(f'<circle class="{line.kind}" cx="{a:.1f}" cy="{b:.1f}" r="2.5"/>'
                         for a, b in places)  # fmt: skip
    for step, low, high in line.bands:
        drawn += f'<line class="band" x1="{x(step):.1f}" x2="{x(step):.1f}"' \
                 f' y1="{y(low):.1f}" y2="{y(high):.1f}"/>'  # fmt: skip
    return drawn


def _y_tick(value: float, y: float) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>'
    )


def _x_tick(value: float, x: float) -> str:
    anchor = "end" if x > WIDTH - RIGHT - 16 else "middle"
    return f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{short(value)}</text>'


def linear_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Choose round values for a linear axis.

    Args:
        low: Smallest value.
        high: Largest value.
        most: About how many ticks.

    Returns:
        Multiples of 1, 2 or 5 times a power of ten that cover the values; one if there is only
        one value.
    """
    extent = high - low
    if not extent > abs(high) * 1e-12:
        return [low]
    rough = extent / most
    power = 10.0 ** math.floor(math.log10(rough))
    unit = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / unit), math.ceil(high / unit)
    return [round(n * unit, 12) if unit > 1e-9 else n * unit for n in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Choose round values for a logarithmic axis.

    Args:
        low: Smallest value, positive.
        high: Largest value.

    Returns:
        Powers of ten, with 2 and 5 times them if the values span less than two of them. Of many,
        every second or third.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1.0, 2.0, 5.0) if last - first <= 2 else (1.0,)
    every = -(-(last - first + 1) // 6)
    ticks = [f * 10.0**n for n in range(first, last + 1, every) for f in factors]
    below = max((tick for tick in ticks if tick <= low), default=ticks[0])
    above = min((tick for tick in ticks if tick >= high), default=ticks[-1])
    return [tick for tick in ticks if below <= tick <= above]


def short(value: float) -> str:
    """Format a number for an axis.

    Args:
        value: The number.

    Returns:
        At most about six characters, such as 0.05, 12k, 3M or 2e-07.
    """
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 10 * unit or (abs(value) >= unit and unit > 1e3):
            return f"{value / unit:.4g}{letter}"
    return f"{value:.4g}"
