"""The scores of a run that benchmarks wrote into results.json, as they are published."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.json_files import read_object
from t2i.core.runs.folder import Run

FILE = "results.json"
NAMESPACE = "t2i-zoo"
"""Owner of the benchmarks' names in `.eval_results`: the distribution that defines them."""


@dataclass(frozen=True)
class SharedScore:
    """One score of a run.

    Args:
        title: Heading of its column.
        set: Name of the caption set.
        measure: Name of the measure.
        score: Name of the score.
        value: The score.
        interval: 95 % confidence interval (low, high). None: unknown.
        better: "higher", "lower" or "none".
    """

    title: str
    set: str
    measure: str
    score: str
    value: float
    interval: tuple[float, float] | None
    better: str

    def in_words(self) -> str:
        """Write the score with its interval.

        Returns:
            Such as "12.3 (11.9 to 12.8)".
        """
        range_ = f" ({self.interval[0]:.4g} to {self.interval[1]:.4g})" if self.interval else ""
        return f"{self.value:.4g}{range_}"


@dataclass(frozen=True)
class SharedResults:
    """The scores of a run under one protocol.

    Args:
        benchmark: Name of the benchmark.
        protocol: Everything that the scores depend on.
        protocol_hash: Its SHA-256.
        created: Date and time, ISO 8601.
        scores: The scores, in the order of the table.
        sampling: The sampler's settings.
        warnings: Remarks on the run's row.
        document: What is published: the results with this run's row alone.
    """

    benchmark: str
    protocol: Mapping[str, Any]
    protocol_hash: str
    created: str
    scores: Sequence[SharedScore]
    sampling: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    document: Mapping[str, Any] = field(default_factory=dict)

    def eval_results(self) -> list[dict[str, Any]]:
        """Convert the scores to the entries of the hub's `.eval_results/*.yaml`.

        Returns:
            One entry a score: data set, value, date, and the interval with the protocol in "notes".
        """
        return [
            {
                "dataset": {
                    "id": f"{NAMESPACE}/{self.benchmark}",
                    "task_id": _slug(
                        self.protocol.get("protocol"), one.set, one.measure, one.score
                    ),
                },
                "value": one.value,
                "date": self.created,
                "notes": f"{one.title}: {one.in_words()}; 95 % interval in brackets; protocol "
                f"{self.protocol_hash[:16]}",
            }
            for one in self.scores
        ]


def results_of(run: Run, model: str, places: Sequence[Path] = ()) -> list[SharedResults]:
    """Find the scores of a run.

    Args:
        run: The run. A benchmark that trained it is found beside it.
        model: Name of the run's model.
        places: Folders of further benchmarks that scored it, or their files results.json.

    Returns:
        Its scores, a benchmark each.

    Raises:
        UserError: A file cannot be read, or has no row of this run.
    """
    found = []
    own = run.path.absolute().parent.parent / FILE
    named = {_file(place).resolve() for place in places}
    if run.path.absolute().parent.name == "runs" and own.is_file() and own.resolve() not in named:
        shared = _read(own, (run.path.name,))
        found += [shared] if shared else []
    for place in places:
        shared = _read(_file(place), (run.path.name, model))
        if shared is None:
            raise UserError(
                f"{_file(place)} has no row '{run.path.name}' or '{model}': name a benchmark that "
                "scored this run"
            )
        found.append(shared)
    return found


def _file(place: Path) -> Path:
    return place / FILE if place.is_dir() else place


def _read(file: Path, names: Sequence[str]) -> SharedResults | None:
    """Read the row of the first of the names that the results have."""
    document = read_object(file, "results", finite=True)
    try:
        rows = {str(row["name"]): row for row in document["rows"] if row["kind"] == "model"}
        row = next((rows[name] for name in names if name in rows), None)
        if row is None:
            return None
        scores = [
            score for column in document["columns"] if (score := _score(row, column)) is not None
        ]
        return SharedResults(
            str(document["benchmark"]), dict(document["protocol"]),
            str(document["protocol_hash"]), str(document.get("created", "")), scores,
            dict(row.get("sampling") or {}), [str(text) for text in row.get("warnings") or ()],
            {**document, "rows": [row], "ranking": []},
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UserError(
            f"{file} holds no results of 't2i bench': run the benchmark again"
        ) from None


def _score(row: Mapping[str, Any], column: Mapping[str, Any]) -> SharedScore | None:
    place = (str(column["set"]), str(column["measure"]), str(column["score"]))
    value, interval = row.get("scores", {}), row.get("intervals", {})
    for key in place:
        value, interval = value.get(key, {}), interval.get(key, {})
    if not isinstance(value, int | float):
        return None
    ends = (float(interval[0]), float(interval[1])) if interval else None
    return SharedScore(
        str(column["title"]), *place, float(value), ends, str(column.get("better", "none"))
    )


def _slug(*parts: object) -> str:
    """Join words to an identifier of small letters, digits and "_"."""
    return re.sub(r"\W+", "_", " ".join(str(part) for part in parts if part).lower())
