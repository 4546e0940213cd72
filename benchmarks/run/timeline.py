"""The time of a whole benchmark: what was spent on what, and how much is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean

STRETCH = 1.05
"""Wall time of a training by its budget, until one is measured: grids and checkpoints are not
counted as training."""

SETUP = 5.0
"""Seconds between the start of a training and its first step, until one is measured."""

PACE = 0.03
"""Seconds to sample and score an image, until it is measured."""

CLOSING = 6.0
"""Seconds at the end, for the sheets and the report."""


@dataclass
class Work:
    """The work on a row of a model.

    Args:
        label: Name of the row.
        kind: What may take as long: the name of its model.
        budget: Seconds of training. None: unknown, because it is given in steps. 0: nothing is
            trained.
        images: Number of images to sample and score.

    Attributes:
        trained: Seconds that training took. None: it is not over.
        scored: Seconds that sampling and scoring took. None: it is not over.
    """

    label: str
    kind: str
    budget: float | None
    images: int
    trained: float | None = None
    scored: float | None = None


@dataclass
class _Now:
    """What is being done: a training, or sampling and scoring.

    `share` is the part that is done, 0 to 1; `left` are the seconds that were left `at` that time.
    """

    work: Work
    training: bool
    began: float
    at: float
    share: float = 0.0
    left: float | None = None


@dataclass
class Timeline:
    """Measures a benchmark, and estimates the time that is left of it.

    The estimate is of the whole command: all trainings by their budget, and sampling and scoring by
    what they took for rows that are done.

    Args:
        works: The rows of models, in order.
        clock: Returns the time in seconds.
        began: When the command began, by that clock. None: now.
        jobs: Number of trainings that run at once.

    Attributes:
        spent: Seconds by row and by kind: "training", "sampling" or "scoring".
    """

    works: Sequence[Work]
    clock: Callable[[], float] = time.monotonic
    began: float | None = None
    jobs: int = 1
    spent: dict[str, dict[str, float]] = field(default_factory=dict)
    _now: dict[str, _Now] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.began is None:
            self.began = self.clock()

    # --- what was spent

    @contextmanager
    def spending(self, row: str, kind: str) -> Iterator[None]:
        """Count the time of the block.

        Args:
            row: Name of the row that it is spent on.
            kind: What it is spent on.

        Yields:
            Nothing.
        """
        began = self.clock()
        try:
            yield
        finally:
            self.add(row, kind, self.clock() - began)

    def add(self, row: str, kind: str, seconds: float) -> None:
        """Count time.

        Args:
            row: Name of the row that it was spent on.
            kind: What it was spent on.
            seconds: The time. Less than 0 moves it to another kind.
        """
        own = self.spent.setdefault(row, {})
        own[kind] = own.get(kind, 0.0) + seconds

    def elapsed(self) -> float:
        """Return how long the command has run.

        Returns:
            Seconds.
        """
        assert self.began is not None
        return self.clock() - self.began

    def division(self) -> dict[str, float]:
        """Divide the time of the command so far.

        Returns:
            Seconds: "all" of the command, and its parts "training", "sampling", "scoring" and
            "rest".
        """
        whole, parts = self.elapsed(), ("training", "sampling", "scoring")
        sums = {part: sum(own.get(part, 0.0) for own in self.spent.values()) for part in parts}
        return {"all": whole, **sums, "rest": max(0.0, whole - sum(sums.values()))}

    # --- what is left

    def parts(self) -> tuple[int, int]:
        """Count the parts of the command: the training of each row, and its sampling and scoring.

        Returns:
            How many are done, and how many there are. A row whose run is there already is not
            trained.
        """
        trainings = [work for work in self.works if work.budget != 0]
        done = sum(work.trained is not None for work in trainings)
        done += sum(work.scored is not None for work in self.works)
        return done, len(trainings) + len(self.works)

    @contextmanager
    def training(self, label: str, together: int = 1) -> Iterator[None]:
        """Train a row within the block.

        Args:
            label: Name of the row.
            together: Number of trainings that run at once, this one among them.

        Yields:
            Nothing.
        """
        with self._doing(label, training=True) as now:
            yield
        now.work.trained = self.clock() - now.began
        if now.work.budget != 0:  # it was trained before
            self.add(label, "training", now.work.trained / together)

    @contextmanager
    def scoring(self, label: str) -> Iterator[None]:
        """Sample and score a row within the block.

        Args:
            label: Name of the row. A row of real images is not estimated.

        Yields:
            Nothing.
        """
        with self._doing(label, training=False) as now:
            yield
        now.work.scored = self.clock() - now.began
        if not now.share:  # it was there already, which says nothing about the others
            now.work.images = 0

    @contextmanager
    def _doing(self, label: str, training: bool) -> Iterator[_Now]:
        work = next((w for w in self.works if w.label == label), Work(label, "", 0, 0))
        self._now[label] = now = _Now(work, training, self.clock(), self.clock())
        try:
            yield now
        finally:
            del self._now[label]

    def done(self, label: str, share: float, left: float | None = None) -> None:
        """Note how much of a training, or of sampling and scoring, is done.

        Args:
            label: Name of the row.
            share: The part that is done, 0 to 1.
            left: Seconds left of it, as its own clock counts them. None: by the time that it took.
        """
        if label not in self._now:
            return
        now, at = self._now[label], self.clock()
        if left is None and share > 0:
            left = (at - now.began) * (1 - share) / share
        elif left is not None and now.training:
            left *= self._stretch()
        now.at, now.share, now.left = at, share, left

    def images(self, count: int) -> None:
        """Note how many images of the present row are sampled and scored.

        Args:
            count: Number of images so far, over all sets.
        """
        for label, now in self._now.items():
            if now.work.images:
                self.done(label, min(1.0, count / now.work.images))

    def left(self) -> float | None:
        """Estimate how long the command will go on.

        Returns:
            Seconds. None: unknown, as the pace of a budget in steps is before the first steps.
        """
        present = [self._of_training(work) for work in self.works if self._at(work, training=True)]
        later = [
            self._of_training(work) for work in self.works if not self._at(work, training=True)
        ]
        if None in present or None in later:
            return None
        training = max(filter(None, present), default=0.0) + sum(filter(None, later)) / self.jobs
        return training + sum(self._of_scoring(work) for work in self.works) + CLOSING

    def progress(self) -> float | None:
        """Return how much of the command is done.

        Returns:
            The part that is done, 0 to 1. None: unknown.
        """
        left = self.left()
        return None if left is None else self.elapsed() / max(self.elapsed() + left, 1e-9)

    def _at(self, work: Work, training: bool) -> _Now | None:
        """Return the training, or the sampling and scoring, of a row, if it is being done."""
        now = self._now.get(work.label)
        return now if now and now.training == training else None

    def _of_training(self, work: Work) -> float | None:
        """Return the seconds left of a row's training; None: unknown."""
        if work.trained is not None or work.budget == 0:
            return 0.0
        now = self._at(work, training=True)
        if now and now.left is not None:
            return max(0.0, now.left - (self.clock() - now.at))
        whole = self._whole_training(work)
        if whole is not None and now:
            return max(0.0, whole - (self.clock() - now.began))
        return whole

    def _whole_training(self, work: Work) -> float | None:
        """Estimate a training that has not begun; None: no training's pace is known."""
        if work.budget is not None:
            return work.budget * self._stretch() + SETUP
        known = [(w.kind, w.trained) for w in self.works if w.trained is not None and w.budget != 0]
        known += [
            (now.work.kind, now.at - now.began + now.left)
            for now in self._now.values()
            if now.training and now.left is not None
        ]
        return _typical(known, work.kind)

    def _stretch(self) -> float:
        """Return the wall time of trainings by their budget, as measured."""
        over = [w for w in self.works if w.trained and w.budget]
        wall, budget = sum(w.trained or 0 for w in over), sum(w.budget or 0 for w in over)
        return max(1.0, wall / budget) if over else STRETCH

    def _of_scoring(self, work: Work) -> float:
        """Return the seconds left of a row's sampling and scoring."""
        if work.scored is not None:
            return 0.0
        now = self._at(work, training=False)
        if now and now.left is not None:
            return max(0.0, now.left - (self.clock() - now.at))
        known = [
            (w.kind, w.scored / w.images) for w in self.works if w.scored is not None and w.images
        ]
        pace = _typical(known, work.kind)
        whole = work.images * (PACE if pace is None else pace)
        return max(0.0, whole - (self.clock() - now.began)) if now else whole


def _typical(known: Sequence[tuple[str, float]], kind: str) -> float | None:
    """Return the mean of the numbers of a kind; of all kinds, if none is of this one."""
    own = [number for name, number in known if name == kind]
    numbers = own or [number for _, number in known]
    return fmean(numbers) if numbers else None
