"""Score a model every so often while it is trained, and stop when its last mark is reached."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from t2i.benchmarks.run.arithmetic import Arithmetic
from t2i.benchmarks.speedrun.judge import Judge, Verdict
from t2i.benchmarks.speedrun.results import Entry, Point, told
from t2i.core.engine.observer import Moment
from t2i.core.models.model import Model
from t2i.core.runs.folder import Run


class MarksReached(Exception):
    """The last mark is reached, so the training ends."""


class Watch:
    """The observer of a speed run.

    The last stage is scored, since the generator cannot be sampled before.

    Args:
        entry: The entry, whose scores are completed.
        judge: Scores the model.
        run: The run, which gets the model that reached the last mark.
        every: Seconds of the stage's training between two scores, or steps.
        by_steps: Whether `every` is in steps.
        arithmetic: The operations of a step. None: they could not be counted.
        save: Writes the entry to its file.
    """

    def __init__(
        self,
        entry: Entry,
        judge: Judge,
        run: Run,
        every: float,
        by_steps: bool,
        arithmetic: Arithmetic | None,
        save: Callable[[], None],
    ) -> None:
        self.entry, self.judge, self.run, self.save = entry, judge, run, save
        self._every, self._by_steps, self._arithmetic = every, by_steps, arithmetic
        self._turn: int | None = None  # turns of `every` that have been scored

    def due(self, moment: Moment) -> bool:
        """Tell whether the next score is due.

        Args:
            moment: How far the run is.

        Returns:
            True in the last stage, each time that `every` is over.
        """
        if not moment.last:
            return False
        if self._turn is None:
            self._turn = self._begin(moment)
        return self._turns(moment) > self._turn

    def _turns(self, moment: Moment) -> int:
        steps = moment.steps[moment.stage]
        return self._whole_turns(steps if self._by_steps else moment.stage_seconds)

    def _whole_turns(self, spent: float) -> int:
        return math.floor(spent / self._every + 1e-9)

    def _begin(self, moment: Moment) -> int:
        """Return the turns that were scored before the run was interrupted; 0 in a new run.

        A killed run goes back to its last checkpoint. Scores after that are of steps that are made
        again, so they are forgotten.
        """
        self.entry.points = [p for p in self.entry.points if p.step <= moment.step]
        if not self.entry.points:
            return 0
        last, before = self.entry.points[-1], moment.seconds - moment.stage_seconds
        by_steps = self._by_steps
        return self._whole_turns(last.steps[moment.stage] if by_steps else last.seconds - before)

    def observe(self, moment: Moment, model: Model, say: Callable[[str], None]) -> None:
        """Score the model, and stop the run if it has reached its last mark.

        Args:
            moment: How far the run is.
            model: The model, with the averaged weights.
            say: Reports one line.

        Raises:
            MarksReached: The last mark is reached.
        """
        self.score(moment, model, say, self.entry.next_mark())
        self._turn = self._turns(moment)
        if self.entry.next_mark() is None:
            model.save(self.run.model)
            raise MarksReached

    def score(
        self, moment: Moment, model: Model, say: Callable[[str], None], target: float | None
    ) -> None:
        """Score the model, and keep and report the score.

        Args:
            moment: How far the run is.
            model: The model.
            say: Reports one line.
            target: The mark that decides, after a trial, whether all captions are scored. None: all
                are scored.
        """
        began = time.perf_counter()
        whole = len(self.judge.captions.captions)
        found = [self._point(moment, v, whole) for v in self.judge.score(model, target)]
        self.entry.points.append(found[-1])
        self.entry.scoring_seconds += time.perf_counter() - began
        self.save()
        say(told(self.entry.label, found[-1], self.judge.column))

    def _point(self, moment: Moment, verdict: Verdict, whole: int) -> Point:
        spent = self._arithmetic.spent(moment.steps) if self._arithmetic else None
        return Point(
            moment.step, dict(moment.steps), moment.seconds, spent, verdict.score,
            verdict.interval, verdict.captions, verdict.captions == whole,
        )  # fmt: skip
