"""Progress reports of training: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TextIO

from t2i.core.io.terminal import duration, printable


@dataclass(frozen=True)
class Status:
    """The progress of training after a logged step.

    Args:
        stage: Name of the stage.
        step: Steps done in the run.
        progress: Part of the run that is done, 0 to 1.
        rate: Images per second.
        left: Seconds left in the run. None if unknown.
        losses: Mean losses since the last log line, by name.
    """

    stage: str
    step: int
    progress: float
    rate: float
    left: float | None
    losses: Mapping[str, float]


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


def in_words(status: Status) -> str:
    """Format a status as one line.

    Args:
        status: The progress of training.

    Returns:
        Stage, step, images per second, time left (if known) and losses.
    """
    losses = "  ".join(f"{name} {value:.4g}" for name, value in status.losses.items())
    left = "" if status.left is None else f"  {duration(status.left)} left"
    return f"{status.stage}  step {status.step}  {status.rate:.0f} images/s{left}  {losses}"


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


class Lines(PlainLines):
    """A reporter that prints plain lines, and a status every 10 seconds at most."""

    def status(self, status: Status) -> None:
        """Print the progress, if a line is due.

        Args:
            status: The progress of training.
        """
        self.show(status.progress, in_words(status))

    def show(self, progress: float | None, text: str) -> None:
        """Print how far something is, if a line is due.

        Args:
            progress: The part that is done, 0 to 1. None: unknown.
            text: What is being done.
        """
        if self.due():
            self.say(text if progress is None else f"{progress:4.0%}  {text}")

    def close(self) -> None:
        """Do nothing."""


class Live:
    """A reporter that shows a progress bar on a terminal and prints lines above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._progress = Progress(
            BarColumn(bar_width=24), TaskProgressColumn(),
            TextColumn("{task.description}", markup=False), console=Console(stderr=True),
        )  # fmt: skip
        self._task = self._progress.add_task("starting", total=1.0)
        self._progress.start()

    def say(self, text: str) -> None:
        """Print one line above the bar; control characters in it are escaped.

        Args:
            text: The line.
        """
        self._progress.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def status(self, status: Status) -> None:
        """Move the bar and replace the text beside it.

        Args:
            status: The progress of training.
        """
        self.show(status.progress, in_words(status))

    def show(self, progress: float | None, text: str) -> None:
        """Move the bar and replace the text beside it.

        Args:
            progress: The part that is done, 0 to 1. None: unknown, the bar stays.
            text: What is being done.
        """
        self._progress.update(self._task, completed=progress, description=printable(text))

    def close(self) -> None:
        """Stop the bar and leave it on the terminal."""
        self._progress.stop()


Screen = Lines | Live
"""A reporter that shows the progress of anything (`show`), not only of training."""


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
    return Live() if sys.stderr.isatty() else Lines()
