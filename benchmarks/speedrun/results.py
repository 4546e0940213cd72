"""The results of speed runs: the curve of each model, and when it reached its marks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, TypeAdapter
from rich.console import Console
from rich.table import Table

from t2i.benchmarks.figures import Amount, Count, Score
from t2i.benchmarks.report.table import DASH, cost, number, plain
from t2i.benchmarks.results import Column
from t2i.core.io.documents import checked

FORMAT = 1


@dataclass(frozen=True)
class Point:
    """A score of a model in training.

    Args:
        step: Steps done in the run.
        steps: Steps done by stage.
        seconds: Seconds of training.
        operations: Arithmetic operations of training. None: not counted.
        score: The headline score, of the averaged weights.
        interval: 95 % confidence interval (low, high). None: the score has none.
        captions: Number of captions that were scored.
        whole: Whether these are all captions. Only such a score reaches a mark.
    """

    step: Count
    steps: Mapping[str, Count]
    seconds: Amount
    operations: Amount | None
    score: Score
    interval: tuple[Score, Score] | None
    captions: Count
    whole: bool

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass
class Entry:
    """The speed run of one model.

    Args:
        label: Name of the run: the model's name, with "-seedK" for seeds other than 0.
        model: The model's registered name.
        family: Registry name of its family.
        preset: The preset.
        changed: Settings that differ from the preset, by name, as text.
        seed: The training seed.
        targets: Marks to reach, from the easiest on.
        higher: Whether higher scores are better.
        machine_rate: Rate that the machine reaches with the convolutions and matrix products of
            this training alone, operations/s. None: not measured.
        threads: Threads that trained the model. 0: not known yet.
        points: The scores in order.
        scoring_seconds: Seconds of sampling and scoring, which are not training.
        other_seconds: Seconds of everything else that is not training: set-up, grids, checkpoints.
        done: Whether nothing is left to do.
    """

    label: str
    model: str
    family: str
    preset: str
    changed: Mapping[str, str]
    seed: int
    targets: tuple[Score, ...]
    higher: bool
    machine_rate: Amount | None = None
    threads: int = 0
    points: list[Point] = field(default_factory=list)
    scoring_seconds: Amount = 0.0
    other_seconds: Amount = 0.0
    done: bool = False

    __pydantic_config__ = ConfigDict(extra="forbid")

    @classmethod
    def parse(cls, document: Any, file: Path) -> Self:
        """Read an entry from JSON.

        Args:
            document: The entry, as `document` returns it.
            file: The file that holds it.

        Returns:
            The entry.

        Raises:
            UserError: It is damaged.
        """
        own = document
        if isinstance(document, dict):
            own = {key: value for key, value in document.items() if key != "marks"}
        return checked(TypeAdapter(cls), own, str(file), "remove it and its run")

    def document(self) -> dict[str, Any]:
        """Convert the entry to JSON.

        Returns:
            All fields, and the point that reached each mark (None: not reached).
        """
        marks = [
            {"target": target, "reached": asdict(point) if point else None}
            for target, point in self.marks()
        ]
        return {**asdict(self), "marks": marks}

    def passes(self, score: float, target: float) -> bool:
        """Tell whether a score reaches a mark.

        Args:
            score: The score.
            target: The mark.

        Returns:
            True if so.
        """
        return score >= target if self.higher else score <= target

    def marks(self) -> list[tuple[float, Point | None]]:
        """Find the point that reached each mark: the first score of all captions that does.

        Returns:
            (mark, point) in order; the point is None if the mark is not reached.
        """
        whole = [point for point in self.points if point.whole]
        return [
            (target, next((p for p in whole if self.passes(p.score, target)), None))
            for target in self.targets
        ]

    def next_mark(self) -> float | None:
        """Find the easiest mark that is not reached yet.

        Returns:
            The mark; None if all are reached.
        """
        return next((target for target, point in self.marks() if point is None), None)

    def last(self) -> Point | None:
        """Return the last score of all captions.

        Returns:
            The point; None if there is none.
        """
        return next((point for point in reversed(self.points) if point.whole), None)


@dataclass
class SpeedrunResults:
    """The results of `run_speedrun`.

    Args:
        benchmark: Name of the benchmark.
        protocol: What the scores depend on, besides the model.
        headline: The column of the score.
        budget: Training budget of each model: {"minutes": M} or {"steps": N}.
        every: Seconds of training between two scores; steps, if the budget is in steps.
        entries: The models.
        environment: Versions of libraries, system and device.
        note: What was changed, in the user's words.
        command: The command line. Empty if there was none.
        created: Date and time, ISO 8601.
        out: Folder of all files. It is not saved.
    """

    benchmark: str
    protocol: Mapping[str, Any]
    headline: Column
    budget: Mapping[str, float]
    every: float
    entries: Sequence[Entry]
    environment: Mapping[str, Any]
    note: str
    command: str
    created: str
    out: Path

    def document(self) -> dict[str, Any]:
        """Convert the results to JSON.

        Returns:
            All fields but `out`, and the number of the format.
        """
        document = {"format": FORMAT, **asdict(self)}
        del document["out"]
        return {**document, "entries": [entry.document() for entry in self.entries]}

    def show(self, console: Console | None = None) -> None:
        """Print the marks of all models: when each was reached, and with how much arithmetic.

        Args:
            console: Where to print. None: stdout.
        """
        table = Table("model", "mark")
        for title in ("minutes", "steps", "arithmetic", "machine", "score"):
            table.add_column(title, justify="right")
        for entry in self.entries:
            for target, point in entry.marks():
                spent = point or entry.points[-1]
                table.add_row(
                    plain(entry.label), f"{target:g}", minutes(point, entry), f"{spent.step:,}",
                    cost("arithmetic", spent.operations), cost("machine", entry.machine_rate),
                    with_interval(point or entry.last()),
                )  # fmt: skip
        (console or Console()).print(table)


def minutes(point: Point | None, entry: Entry) -> str:
    """Say after how many minutes of training a mark was reached.

    Args:
        point: The score that reached it. None: none did.
        entry: The speed run.

    Returns:
        The minutes, or "not in" and the minutes of the whole training.
    """
    if point is None:
        return f"not in {number(entry.points[-1].seconds / 60)}"
    return number(point.seconds / 60)


def with_interval(point: Point | None) -> str:
    """Format a score with its confidence interval.

    Args:
        point: The score. None: there is none.

    Returns:
        "SCORE (LOW-HIGH)", "SCORE" without an interval, a dash without a score.
    """
    if point is None:
        return DASH
    low_high = point.interval and f" ({DASH.join(map(number, point.interval))})"
    return f"{number(point.score)}{low_high or ''}"


def told(label: str, point: Point, column: Column) -> str:
    """Say a score in one line.

    Args:
        label: Name of the run.
        point: The score.
        column: The score's column.

    Returns:
        Such as "toy: 3.5 min, 1,200 steps, 41 TFLOP: 82 %".
    """
    unit = " %" if column.title.endswith("%") else f" ({column.title})"
    arithmetic = "" if point.operations is None else f", {cost('arithmetic', point.operations)}"
    trial = "" if point.whole else f" of {point.captions} captions, a trial"
    return (
        f"{label}: {number(point.seconds / 60)} min, {point.step:,} steps{arithmetic}: "
        f"{number(point.score)}{unit}{trial}"
    )
