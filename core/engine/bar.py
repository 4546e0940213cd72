"""The progress bar on a terminal: one line that fits its width and moves every second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from t2i.core.engine.status import LOSSES, Showing
from t2i.core.io.terminal import duration, printable

REFRESHES = 2
"""How often the bar is drawn, a second. A thread does it, also during a step of a minute."""

AHEAD = 60.0
"""Seconds for which the bar moves on by itself. Without news for longer, it stands still."""

GAP = "  "

HEAVY = "\N{BOX DRAWINGS HEAVY HORIZONTAL}"

BARS = ((100, 24), (60, 12), (40, 8))
"""(least width of the terminal, width of the bar), in columns. Narrower ones show no bar."""


class Line:
    """What the bar shows: share done and time left first, then as many words as fit.

    Between two reports the time left goes down and the share goes up by the clock.

    Args:
        clock: Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._at = clock()
        self._progress: float | None = None
        self._left: float | None = None
        self._parts: tuple[str, ...] = ("starting",)

    def set(self, progress: float | None, left: float | None, parts: Iterable[str]) -> None:
        """Replace what is shown.

        Args:
            progress: The part that is done, 0 to 1. None: unknown, it stays as it was.
            left: Seconds left. None: unknown; the time since the beginning is shown.
            parts: What is being done, the most important part first. Control characters are
                escaped.
        """
        self._at = self._clock()
        self._progress = self._progress if progress is None else progress
        self._left = left
        self._parts = tuple(printable(part) for part in parts)

    def text(self, width: int, full: str = HEAVY) -> Text:
        """Lay the line out.

        Args:
            width: Columns that it may take. Below 18 the share and the time left need them all.
            full: Character of which the bar is made.

        Returns:
            The line. Its fixed part (bar, share, time) is never cut.
        """
        progress, left = self._now()
        told = f"{duration(self._clock() - self._began)} so far"
        if left is not None:
            told = f"{duration(left)} left"
        line, size = Text(no_wrap=True), next((own for least, own in BARS if width >= least), 0)
        if size:
            done = int(progress * size)
            line.append(full * done, "bar.complete").append(full * (size - done), "bar.back")
            line.append(" ")
        line.append(f"{int(progress * 100):3d}%", "progress.percentage").append(f"{GAP}{told}")
        return line.append(fitting(self._parts, width - line.cell_len - len(GAP), before=GAP))

    def _now(self) -> tuple[float, float | None]:
        """Return the share done and the seconds left by now."""
        progress, left = self._progress or 0.0, self._left
        if not left:
            return progress, left
        ahead = min(self._clock() - self._at, AHEAD, left)
        return progress + (1 - progress) * ahead / left, left - ahead

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text(options.max_width - 1, "-" if options.ascii_only else HEAVY)


def fitting(parts: Sequence[str], width: int, before: str = "") -> str:
    """Join the parts that fit.

    Args:
        parts: The parts, the most important first.
        width: Columns that they may take together.
        before: Text in front of them, which takes columns of its own.

    Returns:
        The parts that fit, with gaps between; the first one is cut if it alone does not fit. "" if
        there is no room for a word.
    """
    if width < 1 or not parts:
        return ""
    line = parts[0]
    if cell_len(line) > width:
        first = Text(line)
        first.truncate(width, overflow="ellipsis")
        return before + first.plain
    for part in parts[1:]:
        if cell_len(line) + len(GAP) + cell_len(part) <= width:
            line += GAP + part
    return before + line


class Bar(Showing):
    """A reporter that shows a progress bar on a terminal and prints lines above it.

    Args:
        stream: The terminal. None: stderr.
    """

    losses = LOSSES

    def __init__(self, stream: TextIO | None = None) -> None:
        self._line = Line()
        console = Console(file=stream) if stream else Console(stderr=True)
        self._live = Live(self._line, console=console, refresh_per_second=REFRESHES)
        self._live.start()

    def say(self, text: str) -> None:
        """Print one line above the bar; control characters in it are escaped.

        Args:
            text: The line.
        """
        self._live.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)

    def show(self, progress: float | None, left: float | None, parts: Sequence[str]) -> None:
        self._line.set(progress, left, parts)

    def close(self) -> None:
        """Stop the bar and leave it on the terminal."""
        self._live.stop()
