"""Reporters: how the benchmark harness shows its progress."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

from t2i.benchmarks.run.timeline import Timeline
from t2i.core.engine.reporting import PlainLines, Screen
from t2i.core.engine.status import LOSSES, Status


class BenchmarkReporter(Protocol):
    """Receives the progress of a benchmark.

    Texts must be shown literally, without markup: they may contain names and captions from
    elsewhere.
    """

    def say(self, text: str) -> None:
        """Show a message: something begins, or a result can be looked at.

        Args:
            text: The message, one line.
        """

    def count(self, what: str, done: int, total: int) -> None:
        """Show how far a task is. It is called often; the reporter may skip calls.

        Args:
            what: Name of the task.
            done: Number of finished items.
            total: Number of all items.
        """


class BenchmarkLines(PlainLines):
    """The default reporter: plain lines on stderr.

    Counts are shown from time to time, and not right after another line.
    """

    def say(self, text: str) -> None:
        """Print a message.

        Args:
            text: The message, one line.
        """
        super().say(text)
        self._last = time.monotonic()

    def count(self, what: str, done: int, total: int) -> None:
        """Print how far a task is, if the last line is at least 10 seconds old.

        Args:
            what: Name of the task.
            done: Number of finished items.
            total: Number of all items.
        """
        if self.due():
            self.say(f"{what}: {done} of {total}")


class WholeCommand:
    """The default reporter of a whole benchmark: one bar, or lines, with the time that is left.

    The same bar shows training, sampling and scoring.

    Args:
        screen: Shows the bar, or lines.
        timeline: Estimates the time that is left of the whole command.
    """

    def __init__(self, screen: Screen, timeline: Timeline) -> None:
        self._screen, self._timeline = screen, timeline
        self._trainings: dict[str, Status] = {}
        self.show(("preparing",))

    def say(self, text: str) -> None:
        """Show a message.

        Args:
            text: The message, one line.
        """
        self._screen.say(text)

    def count(self, what: str, done: int, total: int) -> None:
        """Show how far a task is, and the time left of the whole command.

        Args:
            what: Name of the task.
            done: Number of finished items.
            total: Number of all items.
        """
        self.show((f"{what}: {done} of {total}",))

    def show(self, parts: Sequence[str]) -> None:
        """Show what is being done, with the parts done and the time left of the whole command.

        Args:
            parts: What is being done, the most important part first.
        """
        done, total = self._timeline.parts()
        counted = f"{done} of {total} parts"
        self._screen.show(self._timeline.progress(), self._timeline.left(), (counted, *parts))

    def training(self, row: str, status: Status) -> None:
        """Show the progress of a training, beside that of others that run at once.

        Args:
            row: Name of the row that is trained.
            status: Its progress.
        """
        self._timeline.done(row, status.progress, status.left)
        self._trainings[row] = status
        if len(self._trainings) == 1:
            first, *more = status.words(LOSSES)
            self.show((f"{row}: {first}", *more))
            return
        self.show([f"{name}: {s.stage} step {s.step}" for name, s in self._trainings.items()])

    def trained(self, row: str) -> None:
        """Forget the progress of a training that has ended.

        Args:
            row: Name of its row.
        """
        self._trainings.pop(row, None)

    def close(self) -> None:
        """Leave the bar, which is full if all parts are done. Called once, at the end."""
        done, total = self._timeline.parts()
        if done == total:
            self._screen.show(1.0, 0.0, (f"{done} of {total} parts",))
        self._screen.close()


class TrainingPart:
    """The engine's reporter of one training among the work of a whole benchmark.

    Args:
        row: Name of the row that is trained.
        whole: Shows the progress.
    """

    def __init__(self, row: str, whole: WholeCommand) -> None:
        self._row, self._whole = row, whole

    def say(self, text: str) -> None:
        """Show a message.

        Args:
            text: The message, one line.
        """
        self._whole.say(text)

    def status(self, status: Status) -> None:
        """Show the progress, with the time left of the whole command.

        Args:
            status: The progress of this training.
        """
        self._whole.training(self._row, status)

    def moved(self, status: Status) -> None:
        """Show the progress between two logged steps.

        Args:
            status: The progress of this training.
        """
        self._whole.training(self._row, status)

    def close(self) -> None:
        """End this part: the bar is of the whole command."""
        self._whole.trained(self._row)


class SilentBenchmark:
    """A reporter that shows nothing, for all processes but the first."""

    def say(self, text: str) -> None:
        """Ignore a message.

        Args:
            text: The message.
        """

    def count(self, what: str, done: int, total: int) -> None:
        """Ignore a count.

        Args:
            what: Name of the task.
            done: Number of finished items.
            total: Number of all items.
        """
