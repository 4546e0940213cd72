"""When grids of samples are due by the clock, so that they cost a small share of the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

FIRST = 10.0
"""Seconds of a stage after which its first grid is due: a new user should soon see something."""

SHARE = 0.03
"""Largest share of the time that grids by the clock may take."""

PARTS = 20
"""Two grids by the clock are at least this part of the stage's time apart, so that a run of days
does not make thousands of them."""


class GridClock:
    """Says when a grid, or something else that is sampled while training, is due by the clock.

    Args:
        every: Seconds between two grids. None: never.
        clock: Returns the time in seconds.
        first: Seconds of a stage after which the first one is due, if its cost is not known.
        share: Largest share of the time that they may take.

    Attributes:
        every: Seconds between two grids. None: never.
        cost: Seconds that the last one took, or is expected to take. None: unknown.
    """

    def __init__(
        self,
        every: float | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        first: float = FIRST,
        share: float = SHARE,
    ) -> None:
        self.every, self._clock, self._first, self._share = every, clock, first, share
        self.cost: float | None = None
        self._made = False
        self.begin()

    def begin(self) -> None:
        """Start the clock: the stage begins now, or goes on."""
        self._began = self._last = self._clock()

    def due(self) -> bool:
        """Return whether a grid is due.

        Returns:
            True if so.
        """
        if self.every is None:
            return False
        now = self._clock()
        if self.cost is None:
            return now - self._began >= min(self._first, self.every)
        wait = max(self.every, self.cost / self._share, (now - self._began) / PARTS)
        return now - self._last >= wait

    def expect(self, cost: float) -> None:
        """Estimate what the first one takes, so that it too keeps to its share of the time.

        Args:
            cost: The estimate in seconds. It is ignored once one was made.
        """
        if not self._made:
            self.cost = cost

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Note that a grid is written within the block, and how long that takes.

        Yields:
            Nothing.
        """
        began = self._clock()
        yield
        self._last, self._made = self._clock(), True
        self.cost = self._last - began
