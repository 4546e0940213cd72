"""Votes of people as a column of a benchmark's table, with their protocol."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from t2i.benchmarks.results import Column, Results
from t2i.benchmarks.votes.judgement import Judgement, Judgements
from t2i.core.errors import UserError

MEASURE = "votes"
"""Name of the measure, and of the set, under which rows and protocol hold votes."""

COLUMNS = {
    "pair": Column(MEASURE, MEASURE, "wins", "wins % by votes", "higher"),
    "scale": Column(MEASURE, "grades", "grade", "grade by votes", "higher"),
}
ABOUT = {
    "pair": "Share of blind votes that a model wins, met with each other model as often",
    "scale": "Mean grade that people give, from 0 to 4",
}
READING = {
    "pair": "A tie and 'both bad' count half. With two models, 50 is even.",
    "scale": "From 0 (worst) to 4 (best).",
}


def check_names(judgements: Judgements, rows: Collection[str]) -> list[str]:
    """Check that votes are on models of a benchmark.

    Args:
        judgements: What the votes say.
        rows: Names of the rows.

    Returns:
        The models with votes that are no row; the table leaves them out.

    Raises:
        UserError: No model with votes is a row.
    """
    known = {place.model for table in judgements.tables for place in table.places}
    if not known & set(rows):
        raise UserError(
            f"--votes: they are on {', '.join(sorted(known))}, and the rows are "
            f"{', '.join(sorted(rows))}: give a run the name it has in the votes, --run NAME=RUN"
        )
    return sorted(known - set(rows))


def add_votes(results: Results, judgements: Judgements) -> None:
    """Add a column of votes to results: one of pairs, one of grades, as far as there are any.

    A row without votes has none in it. Columns of other votes are replaced. The hash of the
    protocol stays, for no other score changes.

    Args:
        results: The results; their rows, columns and protocol are extended.
        judgements: What the votes say (`judge`).

    Raises:
        UserError: No model with votes is a row.
    """
    check_names(judgements, [row.name for row in results.rows if row.kind == "model"])
    results.columns = [column for column in results.columns if column.set != MEASURE]
    for row in results.rows:
        row.scores.pop(MEASURE, None)
        row.intervals.pop(MEASURE, None)
    for kind in ("pair", "scale"):
        table = judgements.table(kind)
        if table is None:
            continue
        column = COLUMNS[kind]
        places = {place.model: place for place in table.places}
        for row in results.rows:
            place = places.get(row.name)
            if place is None or row.kind != "model":
                continue
            row.scores.setdefault(column.set, {})[column.measure] = {column.score: place.value}
            if place.low is not None and place.high is not None:
                ends = {column.score: (place.low, place.high)}
                row.intervals.setdefault(column.set, {})[column.measure] = ends
        results.columns = [*results.columns, replace(column, title=_title(column, table))]
        measures = {
            **results.protocol["measures"],
            column.measure: _protocol(table, judgements.files),
        }
        results.protocol = {**results.protocol, "measures": measures}


def _title(column: Column, table: Judgement) -> str:
    """Return the title of a column, with the question that was put."""
    return f"{column.title}, {table.question}"


def _protocol(table: Judgement, files: dict[str, str]) -> dict[str, Any]:
    """Return what a column of votes depends on, as JSON of one level."""
    prior = f"{table.prior['votes']:g} tie a model" if table.prior else None
    alpha = table.agreement.alpha
    return {
        "about": ABOUT[table.kind],
        "reading": READING[table.kind],
        "question": table.question,
        "votes": table.votes,
        "raters": table.raters,
        "prior": prior,
        "agreement": alpha,
        "intervals": "95 %, leaving out one rater at a time",
        "files": "; ".join(f"{name} {digest}" for name, digest in files.items()),
    }
