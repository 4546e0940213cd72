"""Signals: the first one makes the loop save and stop, the second one ends the program at once.

A terminal that is closed sends SIGHUP, often twice and together with others: it saves and stops,
and ends nothing at once. So does SIGUSR1, which SLURM sends before a job's time is over.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""The signal of a terminal that is closed. None: this system has none."""

TIME_OVER: int | None = getattr(signal, "SIGUSR1", None)
"""The signal of a scheduler whose time limit comes near. None: this system has none."""

GENTLE = tuple(n for n in (HANGUP, TIME_OVER) if n is not None)
"""The signals that save and stop, and never end the program at once."""

CAUGHT = (signal.SIGINT, signal.SIGTERM, *GENTLE)
"""The signals that save and stop. SIGHUP stays ignored if it was, as under `nohup`."""


class CutShort(BaseException):
    """A signal arrived during optional work.

    It is a BaseException, so that no `except Exception` in that work catches it.
    """


class StopRequest:
    """The signal that arrived, if one did.

    Attributes:
        number: Number of the signal. 0 if none arrived.
    """

    number: int = 0
    _within_optional: bool = False

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.number and number not in GENTLE and self.number not in GENTLE:
            try:
                for child in multiprocessing.active_children():
                    child.kill()
                    child.join(1)
            finally:  # torch's own handler raises an exception when a worker is killed
                os._exit(128 + number)
        if number not in GENTLE or not self.number:
            self.number = number
        if self._within_optional:
            raise CutShort

    def optional(self, work: Callable[[], None]) -> None:
        """Do long work that may be left undone, unless a signal has arrived or arrives meanwhile.

        Args:
            work: The work. It is not started if a signal has arrived, and cut short by one.
        """
        try:
            self._within_optional = True
            if not self.number:
                work()
        except CutShort:
            pass
        finally:
            self._within_optional = False

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Do a part of optional work that must not be cut short, such as saving.

        Yields:
            Nothing. A signal that arrived meanwhile cuts the optional work short at the end.
        """
        within, self._within_optional = self._within_optional, False
        try:
            yield
        finally:
            self._within_optional = within
        if within and self.number:
            raise CutShort


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Record the signals CAUGHT inside the block instead of ending the program.

    A second SIGINT or SIGTERM kills the loader workers and ends the process at once, with exit code
    128 + its number. Only the main thread can set signal handlers: in other threads signals act as
    usual.

    Yields:
        The request, whose `number` is set when a signal arrives.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    ignored = HANGUP is not None and signal.getsignal(HANGUP) == signal.SIG_IGN
    caught = [number for number in CAUGHT if not (number == HANGUP and ignored)]
    before = {number: signal.signal(number, request._receive) for number in caught}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
