"""The time that a run is charged for: seconds in which its process ran.

A process that is stopped (Ctrl-Z, a frozen container, a paused machine) is not charged for the
pause. A thread of its own notes the time a few times a second. If it could not, and the process
used no processor meanwhile, the process was stopped. The clock never jumps when somebody sets the
system's clock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TICK = 0.2
"""Seconds between two notes of the time."""

PAUSE = 1.0
"""A longer gap between two notes is a pause, in seconds."""

IDLE = 0.1
"""Largest share of a pause in which the process used a processor."""


class RunningTime:
    """A clock that stands still while this process is stopped.

    Args:
        clock: Returns the time in seconds; it never goes backwards.
        processor: Returns the processor time of this process in seconds.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        processor: Callable[[], float] = time.process_time,
    ) -> None:
        self._clock, self._processor = clock, processor
        self._lock = threading.Lock()
        self._noted, self._used = clock(), processor()
        self._left_out = 0.0
        self._watched = False

    def __call__(self) -> float:
        """Return the time.

        Returns:
            Seconds since an arbitrary moment, without pauses and without what `left_out` left out.
        """
        with self._lock:
            return self._note() - self._left_out

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Leave out the time that the block takes, in which the run waits for something.

        Yields:
            Nothing.
        """
        began = self()
        try:
            yield
        finally:
            waited = self() - began
            with self._lock:
                self._left_out += waited

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch for pauses inside the block. Outside it none is noticed.

        Yields:
            Nothing.
        """
        over = threading.Event()
        self()
        self._watched = True
        thread = threading.Thread(target=self._watch, args=(over,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._watched = False
            over.set()
            thread.join()

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(TICK):
            self()

    def _note(self) -> float:
        now, used = self._clock(), self._processor()
        gap = now - self._noted
        if self._watched and gap > PAUSE and used - self._used < IDLE * gap:
            self._left_out += gap
        self._noted, self._used = now, used
        return now
