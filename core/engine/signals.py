"""Signals: the first one asks the loop to save and stop, the second ends the program at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

CAUGHT = (signal.SIGINT, signal.SIGTERM)


class CutShort(BaseException):
    """A signal came in the midst of something that can be left undone. Not an Exception: nobody below may hold it."""


class StopRequest:
    """Which signal came, if one did."""

    number: int = 0
    _within_optional: bool = False

    def _receive(self, number: int, _: FrameType | None) -> None:
        if self.number:
            try:
                for child in multiprocessing.active_children():
                    child.kill()
                    child.join(1)
            finally:  # torch's own handler complains, by an exception, of workers that are killed
                os._exit(128 + number)
        self.number = number
        if self._within_optional:
            raise CutShort

    def optional(self, work: Callable[[], None]) -> None:
        """Does `work`, which takes long and can be left undone, unless a signal has come or comes meanwhile."""
        try:
            self._within_optional = True
            if not self.number:
                work()
        except CutShort:
            pass
        finally:
            self._within_optional = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Inside the block SIGINT and SIGTERM are noted instead of obeyed. Only the main thread can do that."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request._receive) for number in CAUGHT}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
