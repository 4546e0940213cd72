"""What the log of a run says over its steps: losses, speed and scores, in bounded memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MOST_POINTS = 1000
"""Most points of a curve; a screen shows no more."""

MOST_CURVES = 200
"""Most curves of a run. Names beyond are ignored."""

RECENT = 20
"""Number of log lines from which the present speed is computed."""

Point = tuple[float, float]
"""A step and a value."""


@dataclass
class Curve:
    """Values over steps. Neighbours are merged into their mean where there are too many.

    Attributes:
        points: The points, in the order of the log.
        stride: Number of values in each point.
        last: The newest value. None: there is none.
    """

    points: list[Point] = field(default_factory=list)
    stride: int = 1
    last: float | None = None
    _waiting: list[Point] = field(default_factory=list)

    def add(self, step: float, value: float) -> None:
        """Append a value.

        Args:
            step: Its step.
            value: The value, finite.
        """
        self.last = value
        self._waiting.append((step, value))
        if len(self._waiting) < self.stride:
            return
        self.points.append(_mean(self._waiting))
        self._waiting = []
        if len(self.points) >= MOST_POINTS:
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [_mean(pair) for pair in pairs]
            self.stride *= 2

    def shown(self) -> list[Point]:
        """Return the points to plot.

        Returns:
            The points, with the newest values as one more.
        """
        return [*self.points, _mean(self._waiting)] if self._waiting else list(self.points)


def _mean(points: Sequence[Point]) -> Point:
    """Return the last step and the mean value."""
    return points[-1][0], sum(value for _, value in points) / len(points)


@dataclass(frozen=True)
class ScorePoint:
    """A score at a step.

    Args:
        step: The step.
        value: The score.
        interval: Lower and upper end of its interval. None: unknown.
    """

    step: float
    value: float
    interval: tuple[float, float] | None


class History:
    """What a run's log has said so far.

    Attributes:
        losses: Curve of each loss, by stage and name.
        speed: Images per second.
        scores: Points of each score, by name.
        stage: Name of the newest stage. "": unknown.
        step: Steps done.
        seconds: Seconds of training.
        lines: Number of log lines read.
        lost: Number of losses that were not finite.
    """

    def __init__(self) -> None:
        self.losses: dict[tuple[str, str], Curve] = {}
        self.speed = Curve()
        self.scores: dict[str, list[ScorePoint]] = {}
        self.stage, self.step, self.seconds = "", 0.0, 0.0
        self.lines = self.lost = 0
        self._recent: deque[Point] = deque(maxlen=RECENT)

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take in a line of the log. What is not as expected in it is ignored.

        Args:
            entry: The line's object.
        """
        step = number(entry.get("step"))
        if step is None:
            return
        self.lines += 1
        self.step = step
        if isinstance(stage := entry.get("stage"), str) and stage != self.stage:
            self.stage = stage
            self._recent.clear()
        if (seconds := number(entry.get("seconds"))) is not None:
            self.seconds = seconds
            self._recent.append((step, seconds))
        if (rate := number(entry.get("images_per_second"))) is not None:
            self.speed.add(step, rate)
        self._add_losses(step, entry.get("losses"))
        self._add_scores(step, entry.get("scores"))

    def _add_losses(self, step: float, losses: object) -> None:
        if not isinstance(losses, dict):
            return
        for name, found in losses.items():
            value, key = number(found), (self.stage, str(name))
            if value is None:
                self.lost += 1
            elif key in self.losses or len(self.losses) < MOST_CURVES:
                self.losses.setdefault(key, Curve()).add(step, value)

    def _add_scores(self, step: float, scores: object) -> None:
        if not isinstance(scores, dict):
            return
        for name, found in scores.items():
            told = found if isinstance(found, dict) else {"value": found}
            value = number(told.get("value"))
            if value is None or (name not in self.scores and len(self.scores) >= MOST_CURVES):
                continue
            points = self.scores.setdefault(str(name), [])
            points.append(ScorePoint(step, value, _interval(told.get("interval"))))
            del points[:-MOST_POINTS]

    def seconds_left(self, steps: float | None, minutes: float | None) -> float | None:
        """Estimate the training time that is left.

        Args:
            steps: Planned steps of the run. None: the budget is no number of steps.
            minutes: Planned minutes of the run. None: the budget is no time.

        Returns:
            Seconds. None if nothing is planned, or the speed is unknown.
        """
        if minutes is not None:
            return max(0.0, 60 * minutes - self.seconds)
        if steps is None or not self._recent:
            return None
        (first, began), (last, ended) = self._recent[0], self._recent[-1]
        if last <= first or ended <= began:
            first, began = 0.0, 0.0  # one line so far
        if last <= first or ended <= began:
            return None
        return max(0.0, (steps - last) * (ended - began) / (last - first))


def number(value: object) -> float | None:
    """Return a finite number that somebody may have written.

    Args:
        value: Any value of a JSON document.

    Returns:
        The number. None for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def _interval(found: object) -> tuple[float, float] | None:
    if not isinstance(found, list) or len(found) != 2:
        return None
    low, high = map(number, found)
    return None if low is None or high is None else (min(low, high), max(low, high))


def smoothed(points: Sequence[Point], weight: float) -> list[Point]:
    """Smooth a curve by an exponential moving average without bias towards zero.

    Args:
        points: The points.
        weight: Weight of the past, from 0 (nothing is smoothed) to below 1.

    Returns:
        As many points, at the same steps.
    """
    mean, total, found = 0.0, 0.0, []
    for step, value in points:
        mean = weight * mean + (1 - weight) * value
        total = weight * total + (1 - weight)
        found.append((step, mean / total))
    return found
