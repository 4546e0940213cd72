"""Scores of images, with everything that they depend on, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i.core.io.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

FORMAT = 1


@dataclass(frozen=True)
class Score:
    """One score.

    Args:
        measure: The measure, as it was named.
        name: Name of the score, one of those that the metric returns.
        title: Its name for people.
        value: The score.
        interval: The 95 % confidence interval (low, high). None: there is none.
        better: "higher", "lower" or "none".
        features: The features that it was computed with: registry name, extractor, layer and the
            SHA-256 of the weights. Empty: it reads the images.
        images: Number of images that are scored.
        reference: Number of images that they are compared with. None: unknown, or none.
    """

    measure: str
    name: str
    title: str
    value: float
    interval: tuple[float, float] | None
    better: str
    features: Mapping[str, Any]
    images: int | None
    reference: int | None


@dataclass(frozen=True)
class ImageScores:
    """The scores of a set of images.

    `scores["fid"]` is the score of that name.

    Args:
        scores: The scores.
        protocol: Everything that they depend on besides the images: name of the protocol, resizing,
            settings of each metric, versions.
        images: The images: where they are, their number, sizes, and what was passed over.
        reference: The same of the real images. None: nothing was compared.
        left_out: Measures of the protocol that could not be computed, with the reason.
        notes: Facts that the reader should know, a sentence each.
        warnings: Reasons not to trust the scores, a sentence each.
        saved: The file of statistics that was written. None: none.
    """

    scores: Sequence[Score]
    protocol: Mapping[str, Any]
    images: Mapping[str, Any]
    reference: Mapping[str, Any] | None
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    saved: Path | None = None

    def __getitem__(self, name: str) -> float:
        """Return the score of a name; the first one if several measures have it."""
        for score in self.scores:
            if name in (score.name, f"{score.measure} {score.name}"):
                return score.value
        raise KeyError(name)

    def by_measure(self) -> dict[str, dict[str, float]]:
        """Group the scores.

        Returns:
            Score by name, by measure.
        """
        found: dict[str, dict[str, float]] = {}
        for score in self.scores:
            found.setdefault(score.measure, {})[score.name] = score.value
        return found

    def intervals(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Group the intervals.

        Returns:
            95 % confidence interval by the name of the score, by measure.
        """
        found: dict[str, dict[str, tuple[float, float]]] = {s.measure: {} for s in self.scores}
        for score in self.scores:
            if score.interval:
                found[score.measure][score.name] = score.interval
        return found

    def document(self) -> dict[str, Any]:
        """Convert to JSON.

        Returns:
            All fields.
        """
        saved = None if self.saved is None else str(self.saved)
        return {
            "format": FORMAT,
            "scores": [asdict(score) for score in self.scores],
            "protocol": dict(self.protocol),
            "images": dict(self.images),
            "reference": None if self.reference is None else dict(self.reference),
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
            "warnings": list(self.warnings),
            "saved": saved,
        }

    def facts(self) -> list[str]:
        """Say in lines what was compared, and how.

        Returns:
            The lines.
        """
        lines = [f"images: {_side(self.images)}"]
        if self.reference is not None:
            lines.append(f"reference: {_side(self.reference)}")
        return [*lines, f"protocol: {self.protocol['name']} ({self.protocol['resize']})"]

    def rows(self) -> list[list[str]]:
        """Make the rows of the table.

        Returns:
            Title, value, interval, features and counts of each score.
        """
        return [
            [
                score.title,
                f"{score.value:.6g}",
                "{:.4g} to {:.4g}".format(*score.interval) if score.interval else "",
                _features(score.features),
                " / ".join("?" if n is None else f"{n}" for n in _counts(score)),
            ]
            for score in self.scores
        ]

    def remarks(self) -> list[str]:
        """List what the reader should know.

        Returns:
            Warnings, notes, and what was left out, a line each.
        """
        return [
            *(f"! {text}" for text in self.warnings),
            *(f"note: {text}" for text in self.notes),
            *(f"left out: {name} ({reason})" for name, reason in self.left_out.items()),
        ]

    def show(self, console: Console) -> None:
        """Print the facts, the table and the remarks.

        Args:
            console: Where to print.
        """
        from rich.table import Table
        from rich.text import Text

        for line in self.facts():
            console.print(Text(printable(line)))
        if self.scores:
            table = Table()
            for name in TITLES:
                table.add_column(name, justify="right" if name == TITLES[1] else "left")
            for row in self.rows():
                table.add_row(*(Text(printable(cell)) for cell in row))
            console.print(table)
        for line in self.remarks():
            console.print(Text(printable(line), "yellow" if line.startswith("!") else "dim"))
        if self.saved:
            console.print(Text(printable(f"statistics: {self.saved}")))

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in TITLES)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows()
        )
        below = "".join(f"<p>{escape(line)}</p>" for line in (*self.facts(), *self.remarks()))
        return f"<table><tr>{head}</tr>{body}</table>{below}"


TITLES = ("score", "value", "95 % interval", "features", "images / reference")


def _side(side: Mapping[str, Any]) -> str:
    """Describe one of the two sets in a line."""
    count = "statistics alone" if side["statistics"] else f"{side['count']} images"
    if side["statistics"] and side["count"]:
        count = f"statistics of {side['count']} images"
    size = f", {side['size']}" if side["size"] else ""
    passed = sum(side["passed_over"].values())
    reasons = ", ".join(f"{why}: {count}" for why, count in side["passed_over"].items())
    return f"{side['where']}: {count}{size}" + (
        f"; passed over {passed} ({reasons})" if passed else ""
    )


def _features(features: Mapping[str, Any]) -> str:
    if not features:
        return ""
    weights = str(features["weights_sha256"])[:8]
    return f"{features['features']}" + ("" if weights == "none" else f" ({weights})")


def _counts(score: Score) -> list[int | None]:
    return [score.images] if score.reference is None else [score.images, score.reference]
