"""Results of a benchmark: rows of scores under one protocol, their ranking, and results.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from t2i.benchmarks.figures import Amount, Count, LogLine, SamplingCost, Score, TrainingCost
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import Published
from t2i.core.io.documents import checked
from t2i.core.io.json_files import read_json, write_json

FORMAT = 1
VARIETY = "variety"
"""Name of the set of many images for each of a few captions, among the sets of a row's scores."""

SetScores = dict[str, dict[str, Score]]
"""Scores of one set of images: measure -> score -> value."""


@dataclass(frozen=True)
class Column:
    """A column of the table: one score of one measure on one caption set.

    Args:
        set: Name of the caption set, or `VARIETY`.
        measure: Name of the measure.
        score: Name of the score, one of those that the measure returns.
        title: Heading of the column.
        better: "higher", "lower" or "none" (the score is described, not ranked).
    """

    set: str
    measure: str
    score: str
    title: str
    better: Annotated[str, Field(pattern="^(higher|lower|none)$")]


@dataclass
class Row:
    """The scores of one source of images on every caption set.

    Args:
        name: Title of the row. Rows of further seeds are named MODEL-seedK.
        kind: "model": images of a model; "real": other real images of the same captions; "floor":
            real images of the wrong captions.
        model: The model's registered name, or the name under which a run was given. Empty for real
            images.
        seed: The model's training seed.
        scores: Set -> measure -> score -> value.
        intervals: 95 % confidence intervals (low, high), by set, measure and score. A score may
            have none.
        warnings: Remarks for the reader of the table, one sentence each.
        training: Settings and cost of the training, as `training_record` returns them.
        sampling: The sampler's settings, and the seconds that an image takes.
        curve: Lines of the training log, each with seconds, step, stage and losses.
        likelihood: How the likelihood of real images was computed. Empty: it was not.
        spent: Seconds of wall time that the row took: "training" (with grids and checkpoints),
            "sampling" and "scoring". A row that was resumed has those of the last command.
    """

    name: str
    kind: Literal["model", "real", "floor"]
    model: str = ""
    seed: int = 0
    scores: dict[str, SetScores] = field(default_factory=dict)
    intervals: dict[str, dict[str, dict[str, tuple[Score, Score]]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)
    likelihood: dict[str, Any] = field(default_factory=dict)
    spent: dict[str, Amount] = field(default_factory=dict)

    __pydantic_config__ = ConfigDict(extra="forbid")

    @classmethod
    def parse(cls, document: Any, where: str, remedy: str) -> Row:
        """Read a row from JSON, which has lists where a row has tuples.

        Args:
            document: The row, as results.json holds it.
            where: What holds it; errors begin with it.
            remedy: How to mend it; errors end with it.

        Returns:
            The row.

        Raises:
            UserError: A key is unknown or missing, or a value has a wrong type.
        """
        row = checked(_ROW, document, where, remedy)
        row.check(where, remedy)
        return row

    def check(self, where: str, remedy: str) -> None:
        """Check the figures that the report and its plots read.

        Args:
            where: What holds the row; errors begin with it.
            remedy: How to mend it; errors end with it.

        Raises:
            UserError: A figure has a wrong type, or is out of range.
        """
        where = f"{where}: row '{self.name[:40]}'"
        checked(_COST, self.training, f"{where}: training", remedy)
        checked(_SAMPLING, self.sampling, f"{where}: sampling", remedy)
        checked(_CURVE, self.curve, f"{where}: curve", remedy)

    @property
    def has_images(self) -> bool:
        """Whether the report shows its images: real ones, and those of a model's first seed."""
        return self.kind == "real" or (self.kind == "model" and self.name == self.model)

    def get(self, column: Column) -> float | None:
        """Return the score of a column.

        Args:
            column: The column.

        Returns:
            The score; None if this row lacks it.
        """
        return self.scores.get(column.set, {}).get(column.measure, {}).get(column.score)

    def interval(self, column: Column) -> tuple[float, float] | None:
        """Return the 95 % confidence interval of a column's score.

        Args:
            column: The column.

        Returns:
            The interval (low, high); None if this row lacks it.
        """
        return self.intervals.get(column.set, {}).get(column.measure, {}).get(column.score)


@dataclass(frozen=True)
class Value:
    """The content of a table cell: a score and its range.

    Args:
        mean: The score, averaged over seeds.
        low: Lower end of the 95 % confidence interval if there is one seed; the lowest score if
            there are several. None: no interval is known.
        high: The upper end, or the highest score.
    """

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Standing:
    """A line of the ranking: one model with all its seeds, or a row of real images.

    Args:
        rank: Place among the models: 1, and 1 more for each model that is certainly better, whose
            interval lies wholly on the better side. None for real images, and for models without
            the headline score.
        name: The model's name, or the title of the row.
        rows: One row for each seed.
        tied: Whether another model has the same rank.
    """

    rank: int | None
    name: str
    rows: tuple[Row, ...]
    tied: bool = False

    @property
    def place(self) -> str:
        """The rank in words: "2", or "2=" if it is shared; empty if there is none."""
        return f"{self.rank}{'=' if self.tied else ''}" if self.rank else ""

    @property
    def kind(self) -> str:
        """The kind of the rows, as in `Row`."""
        return self.rows[0].kind

    def value(self, column: Column) -> Value | None:
        """Return a column's score over all seeds.

        Args:
            column: The column.

        Returns:
            The score and its range; None if no row has it.
        """
        return value_of(self.rows, column)

    def cost(self, *path: str) -> float | None:
        """Return a cost, averaged over seeds.

        Args:
            *path: Keys that lead to the number; the first is "training" or "sampling".

        Returns:
            The mean over the rows that have the number; None if none has it.
        """
        found = [number for row in self.rows if (number := _at(vars(row), path)) is not None]
        return fmean(found) if found else None


def _at(document: Any, path: Sequence[str]) -> float | None:
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return float(document) if isinstance(document, int | float) else None


def value_of(rows: Sequence[Row], column: Column) -> Value | None:
    """Summarise a column's score over the seeds of one model.

    Args:
        rows: One row for each seed.
        column: The column.

    Returns:
        The mean, with the lowest and highest score, if several rows have the score. If only one has
        it, the score with the first row's confidence interval. None if no row has it.
    """
    found = [value for row in rows if (value := row.get(column)) is not None]
    if not found:
        return None
    if len(found) > 1:
        return Value(fmean(found), min(found), max(found))
    interval = rows[0].interval(column)
    return Value(found[0], *interval) if interval else Value(found[0])


@dataclass
class Results:
    """All results of one run of a benchmark, under one protocol.

    Args:
        benchmark: Name of the benchmark.
        protocol: Everything that the scores depend on, as JSON.
        protocol_hash: SHA-256 of the protocol without the descriptions of its caption sets. Scores
            may be compared if their hashes are equal.
        budget: Training budget of each model: {"minutes": M} or {"steps": N}. "jobs": how many
            trainings ran at once, if several did; each took so many times the minutes then.
        columns: Columns of the table.
        headline: The column that the ranking is sorted by.
        bars: Scores that the report draws as bars.
        rows: Rows in order: real images, models, real images of the wrong captions.
        grid: Captions shown with images, each as {"set": NAME, "caption": TEXT}; the set is "" if
            the caption has no real image.
        environment: Versions of libraries, system and device.
        command: The command line. Empty if there was none.
        created: Date and time of the results, ISO 8601.
        published: Scores that others published. They are not ranked.
        left_out: Optional measures that could not be computed, with the reason.
        spent: Seconds of the command ("all"), and those of them that went into "training",
            "sampling", "scoring" and the "rest", as `Timeline.division` returns them. Rows that
            were finished before took none.
        out: Folder that holds the files of the benchmark. It is not saved.
    """

    benchmark: str
    protocol: dict[str, Any]
    protocol_hash: str
    budget: dict[str, Count | Amount]
    columns: list[Column]
    headline: Column
    bars: list[Column]
    rows: list[Row]
    grid: list[dict[str, str]]
    environment: dict[str, Any]
    command: str = ""
    created: str = ""
    published: list[Published] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    spent: dict[str, Amount] = field(default_factory=dict)
    out: Path = Path()

    __pydantic_config__ = ConfigDict(extra="forbid")

    @property
    def report(self) -> Path:
        """The file of the report, report.html in `out`."""
        return self.out / "report.html"

    def ranking(self) -> list[Standing]:
        """Rank the models by the intervals of the headline score.

        Models whose intervals overlap are not told apart: they are tied unless a third model lies
        between them.

        Returns:
            The ceiling (real images), the models with the best first, the floor (real images of the
            wrong captions). Models without the headline score follow the others and have no rank.
            Models of one rank are ordered by score, equal scores by name.
        """
        by_name: dict[str, list[Row]] = {}
        for row in self.rows:
            by_name.setdefault(row.model if row.kind == "model" else row.name, []).append(row)
        groups = list(by_name.items())
        models = [(value_of(r, self.headline), n, r) for n, r in groups if r[0].kind == "model"]
        ranked = _ranked([(v, n, r) for v, n, r in models if v], self.headline.better)
        ranked += [Standing(None, name, tuple(rows)) for value, name, rows in models if not value]
        return [*_plain(groups, "real"), *ranked, *_plain(groups, "floor")]

    def document(self) -> dict[str, Any]:
        """Convert the results to JSON.

        Returns:
            All fields but `out`, with the number of the format and the ranking of the models.
        """
        document = {"format": FORMAT, **asdict(self)}
        del document["out"]
        ranking = [
            {"rank": s.rank, "name": s.name, "tied": s.tied}
            for s in self.ranking()
            if s.kind == "model"
        ]
        return {**document, "ranking": ranking}

    def _repr_html_(self) -> str:
        heads = ["", "model", *(column.title for column in self.columns)]
        lines = [
            [s.place, s.name, *(_words(s.value(column)) for column in self.columns)]
            for s in self.ranking()
        ]
        head = "".join(f"<th>{escape(title)}</th>" for title in heads)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines
        )
        return f"<table><tr>{head}</tr>{body}</table><p>{escape(str(self.report))}</p>"

    def save(self) -> Path:
        """Write results.json into `out`.

        Returns:
            The file.
        """
        path = self.out / "results.json"
        write_json(path, self.document())
        return path

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read results from a file.

        Args:
            path: A file results.json, or the folder that holds one.

        Returns:
            The results; `out` is the folder of the file.

        Raises:
            UserError: The file is missing, is damaged, has another format, or two rows share a
                name.
        """
        file = path / "results.json" if path.is_dir() else path
        what, remedy = f"results {path}", "run the benchmark again"
        document = read_json(file, what, finite=True)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise UserError(f"{what}: {file} holds no results of 't2i bench' (format {FORMAT})")
        kept = {key: value for key, value in document.items() if key not in ("format", "ranking")}
        results = checked(_RESULTS, {**kept, "out": file.parent}, f"{what}: {file}", remedy)
        for name, count in Counter(row.name for row in results.rows).items():
            if count > 1:
                raise UserError(f"{what}: {file}: {count} rows are named '{name[:40]}'; {remedy}")
        for row in results.rows:
            row.check(f"{what}: {file}", remedy)
        return results


_ROW = TypeAdapter(Row)
_RESULTS = TypeAdapter(Results)
_COST = TypeAdapter(TrainingCost)
_SAMPLING = TypeAdapter(SamplingCost)
_CURVE = TypeAdapter(list[LogLine])


def _ranked(scored: Sequence[tuple[Value, str, list[Row]]], better: str) -> list[Standing]:
    """Rank models by their scores' intervals, and order them: by rank, score and name."""
    sign = -1 if better == "higher" else 1

    def ends(value: Value) -> tuple[float, float]:
        """Return the interval, the better end first, where less is better."""
        low = value.mean if value.low is None else value.low
        high = value.mean if value.high is None else value.high
        first, last = sorted((sign * low, sign * high))
        return first, last

    ranks = {
        name: 1 + sum(ends(other)[1] < ends(value)[0] for other, _, _ in scored)
        for value, name, _ in scored
    }
    shared = Counter(ranks.values())
    ordered = sorted(scored, key=lambda one: (ranks[one[1]], sign * one[0].mean, one[1]))
    return [
        Standing(ranks[name], name, tuple(rows), shared[ranks[name]] > 1)
        for _, name, rows in ordered
    ]


def _words(value: Value | None) -> str:
    """Write a score with its range, in three significant digits."""
    if value is None:
        return ""
    if value.low is None or value.high is None:
        return f"{value.mean:.3g}"
    return f"{value.mean:.3g} ({value.low:.3g} to {value.high:.3g})"


def _plain(groups: Iterable[tuple[str, list[Row]]], kind: str) -> list[Standing]:
    return [Standing(None, name, tuple(rows)) for name, rows in groups if rows[0].kind == kind]
