"""How the harness says what it is doing."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO

from t2i.core.logging import printable


class Reporter(Protocol):
    """Receives progress. Texts are plain: they may hold names and captions that others chose."""

    def say(self, text: str) -> None:
        """One line: something begins, or is there to be looked at."""

    def count(self, what: str, done: int, total: int) -> None:
        """`done` of `total` things; called often, shown as seldom as the reporter likes."""


class Lines:
    """Plain lines, a count at most every `every` seconds. The default, on stderr."""

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        self._stream = stream or sys.stderr
        self._every = every
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        print(printable(text), file=self._stream, flush=True)
        self._last = time.monotonic()

    def count(self, what: str, done: int, total: int) -> None:
        if time.monotonic() - self._last >= self._every:
            self.say(f"{what}: {done} of {total}")


class Silent:
    """Says nothing."""

    def say(self, text: str) -> None:
        pass

    def count(self, what: str, done: int, total: int) -> None:
        pass
