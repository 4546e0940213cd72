"""Compare two results in words: what differs in protocol and making, then the scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from t2i.benchmarks.report.differences import Field, in_words
from t2i.benchmarks.report.table import DASH, number, plain, with_range
from t2i.benchmarks.results import Results, Standing, Value

SHOWN = 500
"""Lines of a table that are printed."""

LONGEST_TITLE = 16
"""Characters of the longest name of a file that stands above a column."""

LONGEST = 300
"""Characters of a value that are printed."""


@dataclass(frozen=True)
class Score:
    """A score of one row in two results A and B.

    Args:
        row: Name of the model, or title of the row.
        score: Title of the score's column.
        better: "higher", "lower" or "none".
        a: The score in A, averaged over seeds; None if A lacks it.
        b: The score in B, averaged over seeds; None if B lacks it.
        range_a: The 95 % confidence interval in A, or the lowest and highest score over seeds. None
            if there is none.
        range_b: The same in B.
    """

    row: str
    score: str
    better: str
    a: float | None
    b: float | None
    range_a: tuple[float, float] | None = None
    range_b: tuple[float, float] | None = None


@dataclass(frozen=True)
class Difference:
    """The differences between two results A and B.

    Args:
        comparable: Whether the hashes of the protocols are equal. Only then may scores be compared.
        fields: The fields that differ.
        scores: All scores that at least one of the results has.
        names: The files or folders of A and B, as they were named.
    """

    comparable: bool
    fields: tuple[Field, ...]
    scores: tuple[Score, ...]
    names: tuple[str, str] = ("A", "B")

    def document(self) -> dict[str, Any]:
        """Convert the differences to JSON.

        Returns:
            All fields.
        """
        return asdict(self)

    def titles(self) -> tuple[str, str]:
        """Name the columns of A and B.

        Returns:
            The names of the files or folders, without their folders, if they differ and are short.
            Else "first" and "second".
        """
        a, b = (Path(name).name for name in self.names)
        short = a != b and all(0 < len(name) <= LONGEST_TITLE for name in (a, b))
        return (a, b) if short else ("first", "second")

    def show(self, console: Console | None = None, force: bool = False) -> None:
        """Print the verdict, what differs, and the scores if they may be compared.

        Args:
            console: Where to print. None: stdout.
            force: Whether scores are printed that must not be compared.
        """
        console = console or Console()
        verdict = "same protocol: the scores may be compared"
        if not self.comparable:
            verdict = "different protocols: the scores must not be compared"
        console.print(Text(verdict, "green" if self.comparable else "yellow"))
        first, second = self.names
        console.print(plain(f"first: {first[:LONGEST]}"))
        console.print(plain(f"second: {second[:LONGEST]}"))
        told = list(dict.fromkeys(in_words(self.fields)))
        for line in told[:SHOWN]:
            console.print(plain(f"- {line[:LONGEST]}"))
        if len(told) > SHOWN:
            console.print(f"{len(told) - SHOWN:,} more differences, in --json")
        if self.comparable or force:
            console.print(_scores_table(self.scores, self.titles(), self.comparable))
        else:
            console.print("The scores are not shown side by side; --force shows them.")


def _scores_table(scores: tuple[Score, ...], names: tuple[str, str], comparable: bool) -> Table:
    """Return a table of scores with their intervals, none of which is cut."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("row", overflow="fold")
    table.add_column("score", overflow="fold")
    for name in names:
        table.add_column(plain(name), justify="right", no_wrap=True)
    if comparable:
        table.add_column("change", justify="right", no_wrap=True)
    for s in scores[:SHOWN]:
        cells = [_with_range(s.a, s.range_a), _with_range(s.b, s.range_b)]
        if comparable:
            cells.append(number(s.b - s.a) if s.a is not None and s.b is not None else DASH)
        table.add_row(plain(s.row[:LONGEST]), plain(s.score[:LONGEST]), *cells)
    if len(scores) > SHOWN:
        table.add_row(f"{len(scores) - SHOWN:,} more, in --json", "")
    return table


def _with_range(mean: float | None, ends: tuple[float, float] | None) -> str:
    if mean is None:
        return DASH
    return with_range(Value(mean, *(ends or (None, None))))


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
    return Difference(comparable, tuple(fields), tuple(_scores(first, second)), (str(a), str(b)))


def differences_in_words(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Say what differs between two protocols.

    Args:
        a: The first protocol, as JSON.
        b: The second.

    Returns:
        A few words for each difference, such as "captions differ: 400 and 8".
    """
    return list(dict.fromkeys(in_words(tuple(_differing("protocol", a, b)))))


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
                    name, column.title, column.better, a.mean if a else None,
                    b.mean if b else None, _range(a), _range(b),
                )  # fmt: skip


def _range(value: Value | None) -> tuple[float, float] | None:
    if value is None or value.low is None or value.high is None:
        return None
    return value.low, value.high


def _standings(results: Results) -> dict[str, Standing]:
    return {standing.name: standing for standing in results.ranking()}
