"""Reporters: how the benchmark harness shows its progress."""

from __future__ import annotations

import time
from typing import Protocol

from t2i.core.engine.reporting import PlainLines


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
