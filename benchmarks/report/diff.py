"""Compare two results: every field of the protocols that differs, and all scores side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from t2i.benchmarks.report.table import DASH, number, plain
from t2i.benchmarks.results import Results, Standing

SHOWN = 500
"""Lines of a table that are printed."""

LONGEST = 300
"""Characters of a value that are printed."""


@dataclass(frozen=True)
class Field:
    """A field that differs between two results A and B.

    Args:
        name: Path of the field, with dots, from "protocol", "budget", "left_out", "environment" or
            "rows" on.
        a: Its value in A; None if A lacks it.
        b: Its value in B; None if B lacks it.
    """

    name: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Score:
    """A score of one row in two results A and B.

    Args:
        row: Name of the model, or title of the row.
        score: Title of the score's column.
        better: "higher", "lower" or "none".
        a: The score in A, averaged over seeds; None if A lacks it.
        b: The score in B, averaged over seeds; None if B lacks it.
    """

    row: str
    score: str
    better: str
    a: float | None
    b: float | None


@dataclass(frozen=True)
class Difference:
    """The differences between two results A and B.

    Args:
        comparable: Whether the hashes of the protocols are equal. Only then may scores be compared.
        fields: The fields that differ.
        scores: All scores that at least one of the results has.
    """

    comparable: bool
    fields: tuple[Field, ...]
    scores: tuple[Score, ...]

    def document(self) -> dict[str, Any]:
        """Convert the differences to JSON.

        Returns:
            All fields.
        """
        return asdict(self)

    def show(self, console: Console | None = None) -> None:
        """Print the verdict, the table of fields and the table of scores.

        Args:
            console: Where to print. None: stdout.
        """
        console = console or Console()
        verdict = "same protocol: the scores may be compared"
        if not self.comparable:
            verdict = "different protocols: the scores must not be compared"
        console.print(Text(verdict, "green" if self.comparable else "yellow"))
        if self.fields:
            console.print(_fields_table(self.fields))
        console.print(_scores_table(self.scores, self.comparable))


def _fields_table(fields: tuple[Field, ...]) -> Table:
    table = Table("what differs", "A", "B")
    for entry in fields[:SHOWN]:
        table.add_row(plain(entry.name[:LONGEST]), plain(_words(entry.a)), plain(_words(entry.b)))
    if len(fields) > SHOWN:
        table.add_row(f"{len(fields) - SHOWN:,} more, in --json", "", "")
    return table


def _scores_table(scores: tuple[Score, ...], comparable: bool) -> Table:
    table = Table("row", "score")
    for title in ("A", "B", "B - A") if comparable else ("A", "B"):
        table.add_column(title, justify="right")
    for s in scores[:SHOWN]:
        cells = [number(v) if v is not None else DASH for v in (s.a, s.b)]
        if comparable:
            cells.append(number(s.b - s.a) if s.a is not None and s.b is not None else DASH)
        table.add_row(plain(s.row[:LONGEST]), plain(s.score[:LONGEST]), *cells)
    if len(scores) > SHOWN:
        table.add_row(f"{len(scores) - SHOWN:,} more, in --json", "")
    return table


def _words(value: Any) -> str:
    return DASH if value is None else str(value)[:LONGEST]


def compare(a: Path, b: Path) -> Difference:
    """Compare two results.

    Args:
        a: A file results.json, or the folder that holds one.
        b: The other file or folder.

    Returns:
        What differs. Rows in only one of the results are compared by their scores alone.

    Raises:
        UserError: One of the files is missing, damaged or of another format.
    """
    first, second = Results.load(a), Results.load(b)
    parts = ("protocol", "budget", "left_out", "environment")
    fields = [
        entry
        for part in parts
        for entry in _differing(part, getattr(first, part), getattr(second, part))
    ]
    fields += _differing("rows", _made(first, second), _made(second, first))
    comparable = first.protocol_hash == second.protocol_hash
    return Difference(comparable, tuple(fields), tuple(_scores(first, second)))


def _differing(path: str, a: Any, b: Any) -> Iterator[Field]:
    """Yield the leaves that differ.

    Entries of lists that have names (prompt sets) are matched by name.
    """
    a, b = _named(a), _named(b)
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in dict.fromkeys([*a, *b]):
            yield from _differing(f"{path}.{key}", a.get(key), b.get(key))
    elif a != b:
        yield Field(path, a, b)


def _made(results: Results, other: Results) -> dict[str, Any]:
    """Return the training and sampling settings, not the costs, of rows that both results have."""
    shared = {row.name for row in other.rows}
    return {
        row.name: {
            "training": row.training.get("config"),
            "sampling": {
                key: value for key, value in row.sampling.items() if key != "seconds_per_image"
            },
            "likelihood": row.likelihood,
        }
        for row in results.rows
        if row.name in shared
    }


def _named(value: Any) -> Any:
    """Turn a list of mappings with names into a mapping by name; return anything else as it is."""
    if (
        isinstance(value, list)
        and value
        and all(isinstance(v, Mapping) and "name" in v for v in value)
    ):
        return {str(v["name"]): v for v in value}
    return value


def _scores(first: Results, second: Results) -> Iterator[Score]:
    """Yield the scores of all rows and columns, without those that neither result has."""
    ours, theirs = _standings(first), _standings(second)
    columns = dict.fromkeys([*first.columns, *second.columns])
    for name in dict.fromkeys([*ours, *theirs]):
        for column in columns:
            a, b = (side[name].value(column) if name in side else None for side in (ours, theirs))
            if a or b:
                yield Score(
                    name, column.title, column.better, a.mean if a else None, b.mean if b else None
                )


def _standings(results: Results) -> dict[str, Standing]:
    return {standing.name: standing for standing in results.ranking()}
