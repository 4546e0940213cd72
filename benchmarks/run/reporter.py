"""How the harness says what it is doing."""

from __future__ import annotations

import time
from typing import Protocol

from t2i.core.engine.reporting import PlainLines


class BenchmarkReporter(Protocol):
    """Receives progress. Texts are plain: they may hold names and captions that others chose."""

    def say(self, text: str) -> None:
        """One line: something begins, or is there to be looked at."""

    def count(self, what: str, done: int, total: int) -> None:
        """`done` of `total` things; called often, shown as seldom as the reporter likes."""


class BenchmarkLines(PlainLines):
    """Plain lines, a count now and then, but not right after another line. The default, on stderr."""

    def say(self, text: str) -> None:
        super().say(text)
        self._last = time.monotonic()

    def count(self, what: str, done: int, total: int) -> None:
        if self.due():
            self.say(f"{what}: {done} of {total}")


class SilentBenchmark:
    """Says nothing."""

    def say(self, text: str) -> None:
        pass

    def count(self, what: str, done: int, total: int) -> None:
        pass
