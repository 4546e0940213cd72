"""Scores as text: the format of numbers, and the table on the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from t2i.benchmarks.report.columns import heading
from t2i.benchmarks.results import Column, Results, Standing, Value
from t2i.core.io.terminal import duration, printable

DASH = "\N{EN DASH}"
ARROWS = {"higher": "↑", "lower": "↓", "none": ""}
RANGE_NOTE = {False: "95 % confidence interval", True: "lowest and highest over seeds"}

GAP = 2
"""Columns between two columns of the table."""

LONGEST_NAME = 28
"""Widest column of models' names. A longer name is folded."""

COSTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("parameters", ("training", "parameters", "all")),
    ("trained", ("training", "parameters", "trained")),
    ("training", ("training", "seconds")),
    ("steps", ("training", "steps")),
    ("arithmetic", ("training", "operations", "total")),
    ("machine", ("training", "operations", "machine_rate")),
    ("images/s", ("training", "images_per_second")),
    ("sampling", ("spent", "sampling")),
    ("scoring", ("spent", "scoring")),
    ("s/image", ("sampling", "seconds_per_image")),
    ("memory", ("training", "peak_memory_bytes")),
)
"""Costs of a model: title, and path of the number in a row. images/s is measured in training,
s/image in sampling. The arithmetic is that of the training; the machine's rate is what it reaches
with the same convolutions and matrix products alone. "sampling" and "scoring" are the seconds that
the row's images took."""

TIMES = ("training", "sampling", "scoring")
"""Costs in seconds."""


def number(value: float) -> str:
    """Format a number with three significant digits.

    Args:
        value: The number.

    Returns:
        The text; from 1000 on all digits before the point, with commas; below 0.0001 with an
        exponent.
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    if abs(value) < 1e-4:
        return f"{value:.2e}"
    return (
        f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"
        if abs(value) < 1000
        else f"{value:,.0f}"
    )


def with_range(value: Value | None) -> str:
    """Format a score with its range.

    Args:
        value: The score. None: there is none.

    Returns:
        "MEAN (LOW-HIGH)", "MEAN" if there is no range, a dash if there is no score.
    """
    if value is None:
        return DASH
    if value.low is None or value.high is None:
        return number(value.mean)
    return f"{number(value.mean)} ({number(value.low)}{DASH}{number(value.high)})"


def cost(title: str, value: float | None) -> str:
    """Format a cost in a unit that suits its size.

    Args:
        title: Title of the cost, one of those in `COSTS`.
        value: The cost: number of parameters, seconds, steps, operations, operations per second,
            bytes, images per second or seconds per image. None: unknown.

    Returns:
        The number with its unit; a dash if it is unknown.
    """
    if value is None:
        return DASH
    if title == "memory":
        return f"{value / 2**30:.1f} GiB"
    if title in TIMES:
        return f"{value / 60:.1f} min" if value >= 90 else f"{value:.0f} s"
    if title == "steps":
        return f"{value:,.0f}"
    if title in ("arithmetic", "machine"):
        return f"{_prefixed(value)}FLOP{'/s' if title == 'machine' else ''}"
    if title in ("parameters", "trained"):
        return f"{value / 1e6:.1f} M" if value >= 1e5 else f"{value / 1e3:.1f} k"
    return number(value)


def _prefixed(value: float) -> str:
    """Write a large number with the prefix of its unit, such as "41.0 T"."""
    for factor, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= factor:
            return f"{number(value / factor)} {prefix}"
    return f"{number(value)} "


def plain(text: str, style: str = "") -> Text:
    """Make a text for rich that is shown literally.

    Args:
        text: Any text. Markup is not interpreted, control characters are made harmless.
        style: Style of the whole text, as rich takes it.

    Returns:
        The text.
    """
    return Text(printable(text), style)


def show(results: Results, console: Console | None = None) -> None:
    """Print the ranking, a line for each model, with warnings and notes below.

    The headline score comes first. Other scores stand beside it as far as they fit with their
    intervals. Nothing is cut: the report has the rest.

    Args:
        results: The results. The ceiling comes first, then models from the best on.
        console: Where to print. None: stdout.
    """
    console = console or Console()
    standings = results.ranking()
    console.print(plain(f"{results.benchmark} ({results.protocol.get('protocol')})", "bold"))
    shown, names = _fitting(results, standings, console.width)
    console.print(_table(results, standings, shown, names))
    console.print(plain(_rest_note(results, shown), "dim"))
    for row in results.rows:
        for warning in row.warnings:
            console.print(plain(f"! {row.name}: {warning}", "yellow"))
    for name, reason in results.left_out.items():
        console.print(plain(f"left out: {name} ({reason})", "dim"))
    for claim in dict.fromkeys(entry.protocol for entry in results.published):
        console.print(
            plain(f"published ({claim}), not ranked with ours: {_printed(results, claim)}", "dim")
        )
    if told := spent_note(results):
        console.print(Text(told))
    if parts := parts_note(results):
        console.print(plain(parts))
    if told := likelihood_note(results):
        console.print(plain(told))
    brackets = brackets_note(standings, shown)
    ties = "Models with '=' share a rank: their intervals overlap. " if _ties(standings) else ""
    console.print(Text(f"{brackets}{ties}Protocol {results.protocol_hash[:12]}.", "dim"))


def spent_note(results: Results) -> str:
    """Say how long the last command took, and how that time was divided.

    Args:
        results: The results, with the times (`spent`) if they are known.

    Returns:
        A sentence; empty if the times are not known.
    """
    if "all" not in results.spent:
        return ""
    whole = results.spent["all"]
    parts = [
        f"{'the rest' if part == 'rest' else part} {duration(seconds)} "
        f"({seconds / max(whole, 1e-9):.0%})"
        for part, seconds in results.spent.items()
        if part != "all"
    ]
    return f"The last command took {duration(whole)}: {', '.join(parts)}."


def parts_note(results: Results) -> str:
    """Say which parts of each model were pretrained, and which models have none.

    Args:
        results: The results.

    Returns:
        A sentence; empty if nothing was trained.
    """
    models = {row.model: row.training.get("config") for row in results.rows if row.kind == "model"}
    told = [
        f"{name}: {', '.join(_pretrained(config)) or 'none'}"
        for name, config in models.items()
        if config
    ]
    return f"Pretrained parts: {'; '.join(told)}." if told else ""


def likelihood_note(results: Results) -> str:
    """Say how the likelihood of real images was computed, for the models that have one.

    Args:
        results: The results.

    Returns:
        A sentence for each way; empty if no model has a likelihood.
    """
    ways: dict[str, list[str]] = {}
    for row in results.rows:
        if row.likelihood:
            words = ", ".join(f"{name} {value}" for name, value in row.likelihood.items())
            ways.setdefault(words, []).append(row.name)
    told = " ".join(f"Likelihood of {', '.join(names)}: {way}." for way, names in ways.items())
    apart = " Likelihoods of different ways are not ranked." if len(ways) > 1 else ""
    return f"{told}{apart}"


def _pretrained(config: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Yield "SECTION NAME" for each setting `weights` that names pretrained weights."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _pretrained(value, key)
        elif key == "weights" and value:
            yield f"{section} {value}".strip()


def brackets_note(standings: Sequence[Standing], columns: Sequence[Column]) -> str:
    """Say what the numbers in brackets are.

    Args:
        standings: The lines of the ranking.
        columns: The columns whose ranges are shown.

    Returns:
        A sentence with a space behind it; empty if no score has a range.
    """
    values = [standing.value(column) for standing in standings for column in columns]
    if all(value is None or value.low is None for value in values):
        return ""
    several = any(len(standing.rows) > 1 for standing in standings)
    return f"In brackets: {RANGE_NOTE[several]}. "


def _printed(results: Results, claim: str) -> str:
    """Return the scores that others published under one protocol, as one line."""
    entries = [entry for entry in results.published if entry.protocol == claim]
    return "; ".join(
        f"{e.model} {', '.join(f'{title} {score:g}' for title, score in e.scores.items())}"
        for e in entries
    )


def _fitting(
    results: Results, standings: Sequence[Standing], width: int
) -> tuple[list[Column], int]:
    """Choose the scores whose values and intervals fit beside the headline score, in order.

    Returns:
        The columns, the headline first, and the width of the column of names.
    """
    ranks = max((len(standing.place) for standing in standings), default=0)
    names = min(LONGEST_NAME, max((len(printable(s.name)) for s in standings), default=5))
    # One gap more than there are: rich before 14.3 pads the last column too.
    free = width - ranks - 2 * GAP - max(names, len("model"))
    shown: list[Column] = []
    others = [column for column in results.columns if column != results.headline]
    for column in [results.headline, *others]:
        needed = GAP + _width(column, results, standings)
        if shown and needed > free:
            break
        shown.append(column)
        free -= needed
    return shown, max(8, min(names, names + free))


def _title(column: Column, results: Results) -> str:
    return f"{heading(column, results.protocol)} {ARROWS[column.better]}".strip()


def _width(column: Column, results: Results, standings: Sequence[Standing]) -> int:
    """Return the width of a column: that of its widest value, or word of its title."""
    values = [with_range(standing.value(column)) for standing in standings]
    return max(map(cell_len, [*values, *printable(_title(column, results)).split()]))


def _table(
    results: Results, standings: Sequence[Standing], shown: Sequence[Column], names: int
) -> Table:
    """Return a table with a line for each model and a column for each of the scores `shown`."""
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("model", max_width=names, overflow="fold")
    for column in shown:
        style = "bold" if column == results.headline else ""
        table.add_column(
            plain(_title(column, results)), justify="right", style=style,
            min_width=_width(column, results, standings),
        )  # fmt: skip
    for standing in standings:
        cells = [with_range(standing.value(column)) for column in shown]
        shade = None if standing.kind == "model" else "dim"
        table.add_row(standing.place, plain(standing.name), *cells, style=shade)
    return table


def _rest_note(results: Results, shown: Sequence[Column]) -> str:
    """Name what only the report has."""
    rest = [heading(c, results.protocol) for c in results.columns if c not in shown]
    return f"In the report: {', '.join([*rest, 'costs'])}, images and training curves."


def _ties(standings: Sequence[Standing]) -> bool:
    return any(standing.tied for standing in standings)
