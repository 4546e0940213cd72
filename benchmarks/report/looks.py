"""The look of a model in every plot: colour, marker and line style, chosen by its name alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

INK = "#111827"
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", INK)
"""Colours that people with any colour vision tell apart. Source: Okabe and Ito 2008.

Their yellow is left out, since it cannot be seen on white. Their black is the ink of the page,
which is light in dark mode.
"""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "*")
LINES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xxx")
REAL, FLOOR = "#6b7280", "#9ca3af"
SALT = 2391
"""With it, models that are often compared differ in colour, and all of t2i in the whole look."""


@dataclass(frozen=True)
class Look:
    """How a name is shown in plots.

    Args:
        colour: Colour, as "#rrggbb".
        marker: Marker, as matplotlib takes it.
        line: Line style, as matplotlib takes it.
        hatch: Pattern of bars, as matplotlib takes it; "" for none.
    """

    colour: str
    marker: str
    line: str
    hatch: str


def look_of(name: str) -> Look:
    """Choose the look of a model, or of anything else that has a name.

    Args:
        name: The name. Nothing else decides, so a model looks the same in every report.

    Returns:
        The look, one of 252. Two names may share a colour, and rarely a whole look.
    """
    digest = hashlib.sha256(f"{SALT} {name}".encode(errors="backslashreplace")).digest()
    line = digest[2] % len(LINES)
    return Look(
        COLOURS[digest[0] % len(COLOURS)], MARKERS[digest[1] % len(MARKERS)], LINES[line],
        HATCHES[line],
    )  # fmt: skip


def look_of_row(kind: str, name: str) -> Look:
    """Choose the look of a line of the ranking.

    Args:
        kind: Kind of the line, as in `Row`.
        name: Its name.

    Returns:
        The look of the model; grey for real images.
    """
    if kind == "model":
        return look_of(name)
    return Look(FLOOR if kind == "floor" else REAL, "o", "-", "")


def look_at(place: int) -> Look:
    """Choose the look of a curve that has no name of its own in other plots.

    Args:
        place: Number of the curve in its plot, from 0.

    Returns:
        The look; the first seven differ in colour, later ones in line style.
    """
    again = place // len(COLOURS) % len(LINES)
    return Look(
        COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)], LINES[again], HATCHES[again]
    )
