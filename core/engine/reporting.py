"""Progress reports of training, and the plain lines that show them where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol, TextIO, runtime_checkable

from t2i.core.engine.status import Showing, Status
from t2i.core.io.terminal import duration, printable


class Reporter(Protocol):
    """Receives progress reports.

    Texts are plain, without markup: they may hold names and captions from a user's data.
    """

    def say(self, text: str) -> None:
        """Report an event, such as the start of a stage or a new file.

        Args:
            text: One line.
        """

    def status(self, status: Status) -> None:
        """Report progress; called after each logged step.

        Args:
            status: The progress of training.
        """

    def close(self) -> None:
        """Stop reporting; called once at the end, also after an error."""


@runtime_checkable
class Moving(Reporter, Protocol):
    """A reporter that also receives progress between logged steps, from the first step on."""

    def moved(self, status: Status) -> None:
        """Report progress between two logged steps; called about twice a second.

        Args:
            status: The progress of training, with the losses of the last logged step.
        """


class PlainLines:
    """Plain lines on a stream, with a limit on how often frequent ones are printed.

    Args:
        stream: Where lines are written. None: stderr.
        every: Least time between two frequent lines, in seconds.
    """

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._every = every
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line; control characters in it are escaped.

        Args:
            text: The line.
        """
        print(printable(text), file=self._stream, flush=True)

    def due(self) -> bool:
        """Return whether a frequent line may be printed now.

        Returns:
            True if so; the next one is then due `every` seconds from now.
        """
        if time.monotonic() - self._last < self._every:
            return False
        self._last = time.monotonic()
        return True


class Lines(PlainLines, Showing):
    """A reporter that prints plain lines, and a status every 10 seconds at most."""

    def show(self, progress: float | None, left: float | None, parts: Sequence[str]) -> None:
        if not self.due():
            return
        share = [] if progress is None else [f"{progress:4.0%}"]
        time_left = [] if left is None else [f"{duration(left)} left"]
        self.say("  ".join([*share, *time_left, *parts]))

    def close(self) -> None:
        """Do nothing."""


class Screen(Moving, Protocol):
    """A reporter that shows the progress of anything, not only of training."""

    def show(self, progress: float | None, left: float | None, parts: Sequence[str]) -> None:
        """Show how far something is.

        Args:
            progress: The part that is done, 0 to 1. None: unknown.
            left: Seconds left. None: unknown.
            parts: What is being done, the most important part first.
        """


class Silent:
    """A reporter that prints nothing, for processes other than the first and for tests."""

    def say(self, text: str) -> None:
        """Ignore a line.

        Args:
            text: The line.
        """

    def status(self, status: Status) -> None:
        """Ignore the progress.

        Args:
            status: The progress of training.
        """

    def close(self) -> None:
        """Do nothing."""


def default_reporter() -> Screen:
    """Choose the reporter for this process's stderr.

    Returns:
        A progress bar if stderr is a terminal, else plain lines.
    """
    if not sys.stderr.isatty():
        return Lines()
    from t2i.core.engine.bar import Bar

    return Bar()
