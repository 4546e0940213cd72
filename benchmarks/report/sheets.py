"""The tables of the report as data. The page, CSV and LaTeX are made from the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from t2i.benchmarks.report.columns import heading, too_few
from t2i.benchmarks.report.table import COSTS, DASH, cost, rank, with_range
from t2i.benchmarks.results import Column, Results, Standing, Value

UNITS = {
    "training": "s", "sampling": "s", "scoring": "s", "arithmetic": "FLOP", "machine": "FLOP/s",
    "memory": "bytes",
}  # fmt: skip
"""Units of the costs that have one, as numbers in a CSV file."""


@dataclass(frozen=True)
class Head:
    """The head of a column of numbers.

    Args:
        title: The title.
        better: "higher", "lower" or "none", as in `Column`.
        unit: Unit of the raw numbers, which CSV shows. "": none.
    """

    title: str
    better: str = "none"
    unit: str = ""


@dataclass(frozen=True)
class Cell:
    """A number of a table.

    Args:
        text: The number as the page shows it, with its range or unit.
        value: The number itself and its range. None: there is none.
        best: Whether it is the best of its column.
        too_few: Whether it is computed from too few images to be trusted.
    """

    text: str
    value: Value | None = None
    best: bool = False
    too_few: bool = False


@dataclass(frozen=True)
class Line:
    """A line of a table.

    Args:
        name: What the line is about.
        cells: A cell for each head.
        kind: Kind of the line, as in `Row`.
        rank: Place among the models, as text. "": none.
        note: Remark on the name, such as its source.
    """

    name: str
    cells: tuple[Cell, ...]
    kind: str = "model"
    rank: str = ""
    note: str = ""


@dataclass(frozen=True)
class Sheet:
    """A table.

    Args:
        name: Name of its files, without ending.
        title: What it shows.
        heads: Heads of the columns of numbers.
        lines: The lines.
        ranked: Whether the lines have ranks.
    """

    name: str
    title: str
    heads: tuple[Head, ...]
    lines: tuple[Line, ...]
    ranked: bool = False


def sheets(results: Results) -> list[Sheet]:
    """Make all tables of a report.

    Args:
        results: The results.

    Returns:
        The ranking, the costs, the scores by attribute, and published scores by protocol; without
        those that are empty.
    """
    standings = results.ranking()
    found = [
        ranking_sheet(results, standings),
        *published_sheets(results),
        attributes_sheet(results, standings),
        costs_sheet(standings),
    ]
    return [sheet for sheet in found if sheet.lines]


def ranking_sheet(results: Results, standings: Sequence[Standing]) -> Sheet:
    """Make the table of all scores.

    Args:
        results: The results.
        standings: Their ranking.

    Returns:
        The table.
    """
    title = f"{results.benchmark}: scores"
    return _scores("ranking", title, results, results.columns, standings, ranked=True)


def attributes_sheet(results: Results, standings: Sequence[Standing]) -> Sheet:
    """Make the table of the scores that the report draws as bars.

    Args:
        results: The results.
        standings: Their ranking.

    Returns:
        The table; without lines that have none of the scores.
    """
    shown = [s for s in standings if any(s.value(column) for column in results.bars)]
    title = f"{results.benchmark}: right by attribute, %"
    return _scores("attributes", title, results, results.bars, shown)


def costs_sheet(standings: Sequence[Standing]) -> Sheet:
    """Make the table of the models' costs.

    Args:
        standings: The ranking.

    Returns:
        The table, of models only.
    """
    lines = []
    for standing in (s for s in standings if s.kind == "model"):
        known = [(title, standing.cost(*path)) for title, path in COSTS]
        cells = [Cell(cost(t, v), None if v is None else Value(v)) for t, v in known]
        lines.append(Line(standing.name, tuple(cells)))
    heads = tuple(Head(title, "none", UNITS.get(title, "")) for title, _ in COSTS)
    return Sheet("costs", "Costs", heads, tuple(lines))


def published_sheets(results: Results) -> list[Sheet]:
    """Make a table for each protocol of published scores, as their authors name it.

    Args:
        results: The results.

    Returns:
        The tables. They are not ranked, because how the scores were computed cannot be checked.
    """
    tables = []
    for number, claim in enumerate(dict.fromkeys(e.protocol for e in results.published), 1):
        entries = [entry for entry in results.published if entry.protocol == claim]
        titles = list(dict.fromkeys(title for entry in entries for title in entry.scores))
        lines = []
        for entry in entries:
            values = [entry.scores.get(title) for title in titles]
            cells = [Cell(DASH) if v is None else Cell(f"{v:g}", Value(v)) for v in values]
            lines.append(Line(entry.model, tuple(cells), note=entry.source))
        heads = tuple(Head(title) for title in titles)
        tables.append(Sheet(f"published-{number}", claim, heads, tuple(lines)))
    return tables


def _scores(
    name: str, title: str, results: Results, columns: Sequence[Column],
    standings: Sequence[Standing], ranked: bool = False,
) -> Sheet:  # fmt: skip
    """Make a table of scores, with a line for each standing."""
    few = {column: too_few(column, results.protocol) for column in columns}
    best = {c: None if few[c] else best_score(standings, c) for c in columns}
    lines = []
    for standing in standings:
        cells = []
        for column in columns:
            value = standing.value(column)
            first = value and standing.kind == "model" and value.mean == best[column]
            cells.append(Cell(with_range(value), value, bool(first), bool(value) and few[column]))
        lines.append(Line(standing.name, tuple(cells), standing.kind, rank(standing)))
    heads = tuple(Head(heading(c, results.protocol), c.better) for c in columns)
    return Sheet(name, title, heads, tuple(lines), ranked)


def best_score(standings: Sequence[Standing], column: Column) -> float | None:
    """Find the best score of a column among models.

    Args:
        standings: The ranking.
        column: The column.

    Returns:
        The score; None if the column is not ranked, or if fewer than two models have it.
    """
    values = [v.mean for s in standings if s.kind == "model" and (v := s.value(column))]
    if column.better == "none" or len(values) < 2:
        return None
    return max(values) if column.better == "higher" else min(values)
