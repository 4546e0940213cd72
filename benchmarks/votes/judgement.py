"""What votes say: models with values, intervals and ranks, in a table for each question."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from t2i.benchmarks.votes.agreement import Agreement
from t2i.benchmarks.votes.sides import Sides
from t2i.core.io.json_files import finite

ALL = "all questions"
"""Name of the table that takes the votes on all questions together."""


@dataclass(frozen=True)
class Place:
    """A model in a table.

    Args:
        model: Its name.
        value: Of pairs, how many of 100 votes it would win if it met each of the others equally
            often, a tie as half a win. Of scales, its mean grade, from 0 to 4.
        low: Lower end of the 95 % interval of `value`. None: there is one rater.
        high: Upper end.
        votes: Number of votes on it.
        first: Its best rank that is not excluded, from 1.
        last: Its worst rank that is not excluded.
        strength: Its Bradley-Terry strength, as the logarithm of odds. None for scales.
        bad: Share of its votes that say "both bad". None for scales.
    """

    model: str
    value: float
    low: float | None
    high: float | None
    votes: int
    first: int
    last: int
    strength: float | None = None
    bad: float | None = None

    @property
    def settled(self) -> bool:
        """Whether the votes leave one rank only."""
        return self.first == self.last


@dataclass(frozen=True)
class Needed:
    """An estimate of how many more votes settle which of two neighbours is better.

    Args:
        models: The two models.
        votes: Votes to add, on all models of the table. None: more than 100 times as many as there
            are, or there is one rater.
        raters: Raters to add, who vote as these do.
    """

    models: tuple[str, str]
    votes: int | None
    raters: int | None


@dataclass(frozen=True)
class Judgement:
    """What the votes on one question say.

    Args:
        question: The question, or `ALL`.
        kind: "pair" or "scale".
        places: The models, the best first.
        votes: Number of votes.
        raters: Number of raters.
        choices: How many votes say what: "left", "right", "tie", "bad", or a grade.
        agreement: How far raters agree.
        sides: How often the left image wins. None for scales.
        prior: Weight of the prior in votes, and how far it moves the values ("moves"), at most.
            Empty for scales.
        needed: Neighbours in the ranking that are not settled.
        notes: Remarks, one sentence each.
    """

    question: str
    kind: Literal["pair", "scale"]
    places: list[Place]
    votes: int
    raters: int
    choices: dict[str, int]
    agreement: Agreement
    sides: Sides | None = None
    prior: dict[str, float] = field(default_factory=dict)
    needed: list[Needed] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Judgements:
    """What the votes of some files say, question by question.

    Args:
        tables: A table for each question and kind of votes, and one for all questions if there are
            several.
        files: SHA-256 of each file by its name.
    """

    tables: list[Judgement]
    files: dict[str, str]

    def document(self) -> dict[str, Any]:
        """Convert the tables to JSON.

        Returns:
            All fields. The interval of a single rater is null.
        """
        document = asdict(self)
        for table, made in zip(document["tables"], self.tables, strict=True):
            for place, of in zip(table["places"], made.places, strict=True):
                place["settled"] = of.settled
        plain: dict[str, Any] = finite(document)
        return plain

    def table(self, kind: str) -> Judgement | None:
        """Return the table that stands for all votes of a kind.

        Args:
            kind: "pair" or "scale".

        Returns:
            The table of the question "overall", else the one of all questions, else the only one.
            None if there are no such votes.
        """
        found = {table.question: table for table in self.tables if table.kind == kind}
        return found.get("overall") or found.get(ALL) or next(iter(found.values()), None)
