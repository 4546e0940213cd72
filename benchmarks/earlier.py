"""Rows of earlier commands in the folder of a benchmark: a comparison is never replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from t2i.benchmarks.report.diff import differences_in_words
from t2i.benchmarks.results import Results, Row
from t2i.benchmarks.run.plan import PlannedRun
from t2i.core.errors import UserError

SHOWN = 3
"""Differences of two protocols that a refusal names."""


def earlier_results(
    out: Path, protocol: Mapping[str, Any], protocol_hash: str, runs: Sequence[PlannedRun]
) -> Results | None:
    """Read the results of an earlier command, and check that rows can be added to them.

    Args:
        out: The benchmark's folder.
        protocol: The protocol of this command.
        protocol_hash: Its hash.
        runs: The rows of this command.

    Returns:
        The results; None if there are none.

    Raises:
        UserError: They are damaged, have another protocol, or have a row of another run under a
            name that is wanted now.
    """
    file = out / "results.json"
    if not file.exists():
        return None
    remedy = f"name another --out, or move {file} away"
    try:
        earlier = Results.load(out)
    except UserError as error:
        raise UserError(f"{str(error).rpartition('; ')[0] or error}; {remedy}") from None
    if earlier.protocol_hash != protocol_hash:
        told = differences_in_words(earlier.protocol, protocol)[:SHOWN]
        raise UserError(
            f"--out {out}: it holds a comparison under another protocol"
            f"{told and ' (' + '; '.join(told) + ')'}, whose scores must not stand beside these; "
            "name another --out"
        )
    by_name = {row.name: row for row in earlier.rows}
    for entry in runs:
        if entry.given and entry.label in by_name:
            _check_same(by_name[entry.label], entry, out)
    return earlier


def _check_same(row: Row, entry: PlannedRun, out: Path) -> None:
    """Raise UserError if a row is of another run than the one that is given now."""
    before = str(row.training.get("run", ""))
    now = entry.place.name if entry.place else str(entry.run.path)
    if before != now and Path(before).resolve() != Path(now).resolve():
        raise UserError(
            f"--run {entry.label}={now}: {out} has a row '{entry.label}' already, of {before}; "
            f"give this one another name, or name another --out"
        )


def with_earlier(results: Results, earlier: Results | None) -> Results:
    """Add the rows of an earlier command that this one has not made again.

    Args:
        results: The results of this command.
        earlier: The results of the earlier one, under the same protocol. None: there are none.

    Returns:
        The results with all rows, and the budget of the first command. Rows that were trained with
        another one carry a warning.
    """
    if earlier is None:
        return results
    made = {row.name for row in results.rows}
    kept = [row for row in earlier.rows if row.name not in made]
    if not any(row.kind == "model" for row in kept):
        return results
    first, last = _budget(earlier), _budget(results)
    for row in results.rows:
        if row.kind == "model" and not row.training.get("given") and first != last:
            row.warnings.append(f"trained for {last}, the comparison's others for {first}")
    known = {(column.set, column.measure, column.score) for column in results.columns}
    more = [c for c in earlier.columns if (c.set, c.measure, c.score) not in known]
    order = ("real", "model", "floor")
    rows = sorted([*kept, *results.rows], key=lambda row: order.index(row.kind))
    columns = [*results.columns, *more]
    return replace(results, rows=rows, columns=columns, budget=earlier.budget)


def _budget(results: Results) -> str:
    """Write the training budget of each model, such as "1 minute"."""
    budget = {unit: value for unit, value in results.budget.items() if unit != "jobs"}
    return " ".join(
        f"{value:g} {unit.removesuffix('s') if value == 1 else unit}"
        for unit, value in budget.items()
    )
