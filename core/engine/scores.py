"""Scores of a model while it trains: their values, which one is better, and the best so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from t2i.core.models.model import Model
    from t2i.core.runs.configure import RunConfig

VALIDATION = "validation."
"""Beginning of the names of losses of held-out examples."""


@dataclass(frozen=True)
class Score:
    """A score of a model, with its interval.

    Args:
        value: The score.
        interval: 95 % confidence interval (low, high). None: there is none. One that is not finite
            becomes None.
        count: Number of images or examples that it was computed of.
        higher: Whether higher scores are better.
        title: What it is, for people, such as "FD, pixels, of 64".
    """

    value: float
    interval: tuple[float, float] | None
    count: int
    higher: bool
    title: str

    def __post_init__(self) -> None:
        if self.interval is not None and not all(map(math.isfinite, self.interval)):
            object.__setattr__(self, "interval", None)

    def beats(self, best: Score) -> bool:
        """Tell whether the score is better than the best so far by more than that one's interval.

        Args:
            best: The best score so far.

        Returns:
            True if so. A score that is not finite beats nothing, since comparisons with it are
            false.
        """
        low, high = best.interval or (best.value, best.value)
        return self.value > high if self.higher else self.value < low

    def document(self) -> dict[str, Any]:
        """Describe the score as JSON.

        Returns:
            Value, interval (null: none), count, "high" or "low" as what is better, and title.
        """
        return {
            "value": self.value,
            "interval": list(self.interval) if self.interval else None,
            "count": self.count,
            "better": "high" if self.higher else "low",
            "title": self.title,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Score:
        """Read a score.

        Args:
            document: What `document` returned.

        Returns:
            The score.
        """
        interval, higher = document["interval"], document["better"] == "high"
        return cls(
            document["value"], None if interval is None else (interval[0], interval[1]),
            document["count"], higher, document["title"],
        )  # fmt: skip

    def __str__(self) -> str:
        span = "" if self.interval is None else " ({:.3g} to {:.3g})".format(*self.interval)
        return f"{self.title}: {self.value:.3g}{span}"


@dataclass
class Scored:
    """The scores of a run so far, as a checkpoint holds them.

    Args:
        step: Step of the run at which the model was last scored. -1: it was not.
        seconds: Seconds that were spent on scores in the run.
        name: Name of the score that decides in this stage. "": none yet.
        best: Its best one (`Score.document`), of this stage. Empty: none yet.
        best_step: Step of the best one.
        since: How many scores after the best one did not beat it.
    """

    step: int = -1
    seconds: float = 0.0
    name: str = ""
    best: dict[str, Any] = field(default_factory=dict)
    best_step: int = -1
    since: int = 0

    def new_stage(self) -> Scored:
        """Return the state for a stage that begins.

        Returns:
            The state: nothing but the time that was spent.
        """
        return Scored(seconds=self.seconds)

    def add(self, name: str, score: Score, step: int) -> bool:
        """Add a new score that decides.

        Args:
            name: Its name. If it is another one than before, the count begins anew.
            score: The score.
            step: Step of the run.

        Returns:
            True if it is the best.
        """
        if self.name == name and self.best and not score.beats(Score.of(self.best)):
            self.since += 1
            return False
        self.name, self.best, self.best_step, self.since = name, score.document(), step, 0
        return True


class Examiner(Protocol):
    """Scores samples of the whole model, always of the same captions with the same noise.

    Attributes:
        names: Names of the scores, the most important one first.
    """

    names: tuple[str, ...]

    @property
    def images(self) -> int:
        """The number of images that are sampled for them."""

    def scores(self, model: Model) -> Mapping[str, Score]:
        """Score a model.

        Args:
            model: The model, in evaluation mode with the averaged weights.

        Returns:
            The scores by name.
        """


Examining = Callable[["RunConfig"], Examiner | None]
"""Makes the examiner of a run. None: nothing is scored. It raises a UserError for wrong settings.

Metrics are no part of core, so the command that trains passes the function.
"""
