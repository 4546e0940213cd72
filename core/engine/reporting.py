"""How training says what it is doing: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TextIO

from t2i.core.io.terminal import printable


@dataclass(frozen=True)
class Status:
    """Where training is. progress: of the run, 0 to 1. rate: images a second. left: seconds, None if unknown."""

    stage: str
    step: int
    progress: float
    rate: float
    left: float | None
    losses: Mapping[str, float]


class Reporter(Protocol):
    """Receives progress. Texts are plain: they may hold names and captions that others chose."""

    def say(self, text: str) -> None:
        """One line: something begins, or is there to be looked at."""

    def status(self, status: Status) -> None:
        """Called after each logged step."""

    def close(self) -> None:
        """Called once at the end, whatever the end is."""


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def in_words(status: Status) -> str:
    losses = "  ".join(f"{name} {value:.4g}" for name, value in status.losses.items())
    left = "" if status.left is None else f"  {duration(status.left)} left"
    return f"{status.stage}  step {status.step}  {status.rate:.0f} images/s{left}  {losses}"


class PlainLines:
    """Plain lines on a stream (stderr by default); what comes often, at most every `every` seconds."""

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._every = every
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)

    def due(self) -> bool:
        """Whether it is time for another; if so, the next is due `every` seconds from now."""
        if time.monotonic() - self._last < self._every:
            return False
        self._last = time.monotonic()
        return True


class Lines(PlainLines):
    """Plain lines, a status now and then."""

    def status(self, status: Status) -> None:
        if self.due():
            self.say(f"{status.progress:4.0%}  {in_words(status)}")

    def close(self) -> None:
        pass


class Live:
    """A progress bar on a terminal, with what is said above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._progress = Progress(
            BarColumn(bar_width=24), TaskProgressColumn(), TextColumn("{task.description}", markup=False),
            console=Console(stderr=True),
        )  # fmt: skip
        self._task = self._progress.add_task("starting", total=1.0)
        self._progress.start()

    def say(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def status(self, status: Status) -> None:
        self._progress.update(self._task, completed=status.progress, description=in_words(status))

    def close(self) -> None:
        self._progress.stop()


class Silent:
    """Says nothing: processes other than the first, and tests."""

    def say(self, text: str) -> None:
        pass

    def status(self, status: Status) -> None:
        pass

    def close(self) -> None:
        pass


def default_reporter() -> Reporter:
    return Live() if sys.stderr.isatty() else Lines()
