"""Scores as text: how numbers are written, and the tables on the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from t2i.benchmarks.results import Results, Standing, Value
from t2i.core.io.terminal import printable

DASH = "\N{EN DASH}"
ARROWS = {"higher": "↑", "lower": "↓", "none": ""}
RANGE_NOTE = {False: "95 % confidence interval", True: "lowest and highest over seeds"}

ACROSS = 4  # models beside each other in one table

COSTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("parameters", ("training", "parameters", "all")),
    ("trained", ("training", "parameters", "trained")),
    ("training", ("training", "seconds")),
    ("images/s", ("training", "images_per_second")),
    ("s/image", ("sampling", "seconds_per_image")),
    ("memory", ("training", "peak_memory_bytes")),
)
"""What a model costs: title and where the number is. Training images a second, sampling seconds an image."""


def number(value: float) -> str:
    """Three significant digits, none wasted."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    return (
        f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
        if abs(value) < 1000
        else f"{value:,.0f}"
    )


def with_range(value: Value | None) -> str:
    """A score with its range, if it has one."""
    if value is None:
        return DASH
    if value.low is None or value.high is None:
        return number(value.mean)
    return f"{number(value.mean)} ({number(value.low)}{DASH}{number(value.high)})"


def cost(title: str, value: float | None) -> str:
    """A cost in the unit that suits its size."""
    if value is None:
        return DASH
    if title == "memory":
        return f"{value / 2**30:.1f} GiB"
    if title == "training":
        return f"{value / 60:.1f} min" if value >= 90 else f"{value:.0f} s"
    if title in ("parameters", "trained"):
        return f"{value / 1e6:.1f} M" if value >= 1e5 else f"{value / 1e3:.1f} k"
    return number(value)


def plain(text: str, style: str = "") -> Text:
    """Text for rich that is shown as it is: no markup, and nothing that a terminal would obey."""
    return Text(printable(text), style)


def rank(standing: Standing) -> str:
    return str(standing.rank) if standing.rank else ""


def show(results: Results, console: Console | None = None) -> None:
    """Prints the ranking, best to the left, with the costs below, and what is to be said of the models."""
    console = console or Console()
    standings = results.ranking()
    console.print(plain(f"{results.benchmark} ({results.protocol.get('protocol')})", "bold"))
    for start in range(0, len(standings), ACROSS):
        console.print(_table(results, standings[start : start + ACROSS]))
    for row in results.rows:
        for warning in row.warnings:
            console.print(plain(f"! {row.name}: {warning}", "yellow"))
    for name, reason in results.left_out.items():
        console.print(plain(f"left out: {name} ({reason})", "dim"))
    for claim in dict.fromkeys(entry.protocol for entry in results.published):
        console.print(
            plain(f"published ({claim}), not ranked with ours: {_printed(results, claim)}", "dim")
        )
    several = any(len(standing.rows) > 1 for standing in standings)
    console.print(
        Text(f"In brackets: {RANGE_NOTE[several]}. Protocol {results.protocol_hash[:12]}.", "dim")
    )


def _printed(results: Results, claim: str) -> str:
    """What others printed under one protocol, in a line."""
    entries = [entry for entry in results.published if entry.protocol == claim]
    return "; ".join(
        f"{e.model} {', '.join(f'{title} {score:g}' for title, score in e.scores.items())}"
        for e in entries
    )


def _table(results: Results, standings: Sequence[Standing]) -> Table:
    """Models across and scores downwards: that fits a narrow terminal, and numbers to compare stand side by side."""
    table = Table()
    table.add_column("", no_wrap=True)
    for standing in standings:
        place = f"{standing.rank}. " if standing.rank else ""
        table.add_column(
            plain(f"{place}{standing.name}"), justify="right", style="" if standing.rank else "dim"
        )
    for column in results.columns:
        values = [standing.value(column) for standing in standings]
        bold = column == results.headline
        cells = [
            with_range(v).replace(" ", "\n") if bold else number(v.mean) if v else DASH
            for v in values
        ]
        name = plain(f"{column.title} {ARROWS[column.better]}")
        table.add_row(name, *cells, style="bold" if bold else None)
    table.add_section()
    for title, path in COSTS:
        costs = [standing.cost(*path) for standing in standings]
        if any(value is not None for value in costs):
            table.add_row(title, *(cost(title, value) for value in costs))
    return table
