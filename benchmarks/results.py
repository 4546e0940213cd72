"""Results of a benchmark: rows of scores under one protocol, their ranking, and the file that keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import Published
from t2i.core.io.files import read_json, write_json

FORMAT = 1
VARIETY = "variety"
"""Name under which rows keep the scores of many images of each of a few captions."""

SetScores = dict[str, dict[str, float]]
"""Measure -> score -> value, of one set of images."""


@dataclass(frozen=True)
class Column:
    """A score of the table: which set, which measure, which score, and which way is better."""

    set: str
    measure: str
    score: str
    title: str
    better: str


@dataclass
class Row:
    """The scores of one set of images per caption set.

    kind: "model"; "real", other real images of the same captions; "floor", real images of the wrong captions.
    scores, intervals: by set, measure and score. warnings: what a reader of the table should know.
    training, sampling: cost and settings. curve: (seconds, step, stage, losses) through training.
    """

    name: str
    kind: Literal["model", "real", "floor"]
    model: str = ""
    seed: int = 0
    scores: dict[str, SetScores] = field(default_factory=dict)
    intervals: dict[str, dict[str, dict[str, tuple[float, float]]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, Any] = field(default_factory=dict)
    curve: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Row:
        """A row from JSON, which knows no tuples. TypeError if it is none."""
        row = cls(**document)
        for measures in row.intervals.values():
            for found in measures.values():
                found.update({score: (low, high) for score, (low, high) in found.items()})
        return row

    @property
    def has_images(self) -> bool:
        """Whether its images are shown: of a model's seeds, those of the first."""
        return self.kind == "real" or (self.kind == "model" and self.name == self.model)

    def get(self, column: Column) -> float | None:
        return self.scores.get(column.set, {}).get(column.measure, {}).get(column.score)

    def interval(self, column: Column) -> tuple[float, float] | None:
        return self.intervals.get(column.set, {}).get(column.measure, {}).get(column.score)


@dataclass(frozen=True)
class Value:
    """What stands in a cell: the score (mean over seeds), and a range: the 95 % confidence interval of one run, the
    lowest and highest of several."""

    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Standing:
    """A line of the ranking: one model with all its seeds, or one of the real rows (rank None)."""

    rank: int | None
    name: str
    rows: tuple[Row, ...]

    @property
    def kind(self) -> str:
        return self.rows[0].kind

    def value(self, column: Column) -> Value | None:
        return value_of(self.rows, column)

    def cost(self, *path: str) -> float | None:
        """Mean over seeds of a number under `training` or `sampling`; None where it is not known."""
        found = [number for row in self.rows if (number := _at(vars(row), path)) is not None]
        return fmean(found) if found else None


def _at(document: Any, path: Sequence[str]) -> float | None:
    for key in path:
        document = document.get(key) if isinstance(document, Mapping) else None
    return float(document) if isinstance(document, int | float) else None


def value_of(rows: Sequence[Row], column: Column) -> Value | None:
    found = [value for row in rows if (value := row.get(column)) is not None]
    if not found:
        return None
    if len(found) > 1:
        return Value(fmean(found), min(found), max(found))
    interval = rows[0].interval(column)
    return Value(found[0], *interval) if interval else Value(found[0])


@dataclass
class Results:
    """Everything that a benchmark found, all of it under one protocol.

    published: what others printed; no part of the ranking. left_out: optional measures that could not be made, and why.
    out: the folder that holds its files.
    """

    benchmark: str
    protocol: dict[str, Any]
    protocol_hash: str
    budget: dict[str, Any]
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
    out: Path = Path()

    @property
    def report(self) -> Path:
        return self.out / "report.html"

    def ranking(self) -> list[Standing]:
        """The ceiling, the models best first, the floor. Models that lack the headline score come last, unranked."""
        by_name: dict[str, list[Row]] = {}
        for row in self.rows:
            by_name.setdefault(row.model if row.kind == "model" else row.name, []).append(row)
        groups = list(by_name.items())
        sign = -1 if self.headline.better == "higher" else 1
        keyed = [
            (value_of(rows, self.headline), name, rows)
            for name, rows in groups
            if rows[0].kind == "model"
        ]
        scored = sorted(
            ((sign * v.mean, n, r) for v, n, r in keyed if v), key=lambda entry: entry[:2]
        )
        models = [
            Standing(rank, name, tuple(rows)) for rank, (_, name, rows) in enumerate(scored, 1)
        ]
        models += [Standing(None, name, tuple(rows)) for value, name, rows in keyed if not value]
        return [*_plain(groups, "real"), *models, *_plain(groups, "floor")]

    def document(self) -> dict[str, Any]:
        """As JSON, without `out`."""
        document = {"format": FORMAT, **asdict(self)}
        del document["out"]
        ranking = [{"rank": s.rank, "name": s.name} for s in self.ranking() if s.kind == "model"]
        return {**document, "ranking": ranking}

    def _repr_html_(self) -> str:
        heads = ["", "model", *(column.title for column in self.columns)]
        lines = [
            [str(s.rank or ""), s.name, *(_words(s.value(column)) for column in self.columns)]
            for s in self.ranking()
        ]
        head = "".join(f"<th>{escape(title)}</th>" for title in heads)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in line)}</tr>" for line in lines
        )
        return f"<table><tr>{head}</tr>{body}</table><p>{escape(str(self.report))}</p>"

    def save(self) -> Path:
        path = self.out / "results.json"
        write_json(path, self.document())
        return path

    @classmethod
    def load(cls, path: Path) -> Results:
        """Results from results.json, or from the folder that holds it. UserError if it is none."""
        file = path / "results.json" if path.is_dir() else path
        what = f"results {path}"
        document = read_json(file, what)
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise UserError(f"{what}: {file} holds no results of 't2i bench' (format {FORMAT})")
        kept = {key: value for key, value in document.items() if key not in ("format", "ranking")}
        try:
            kept["columns"] = [Column(**column) for column in kept["columns"]]
            kept["bars"] = [Column(**column) for column in kept["bars"]]
            kept["headline"] = Column(**kept["headline"])
            kept["published"] = [Published(**entry) for entry in kept.get("published", [])]
            kept["rows"] = [Row.parse(row) for row in kept["rows"]]
            return cls(**kept, out=file.parent)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{what}: {file} is damaged ({str(error)[:80]}); run the benchmark again"
            ) from None


def _words(value: Value | None) -> str:
    """Write a score with its range, in three significant digits."""
    if value is None:
        return ""
    if value.low is None or value.high is None:
        return f"{value.mean:.3g}"
    return f"{value.mean:.3g} ({value.low:.3g} to {value.high:.3g})"


def _plain(groups: Iterable[tuple[str, list[Row]]], kind: str) -> list[Standing]:
    return [Standing(None, name, tuple(rows)) for name, rows in groups if rows[0].kind == kind]
