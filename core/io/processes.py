"""The processes that run one command together: a single one, or those that `torchrun` started.

They share the folder OUT. The first process decides and reports; the others do their share of the
sampling. Training gets its processes from accelerate instead: `core/engine/session.py`.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from t2i.core.devices import best_device
from t2i.core.errors import T2IError, UserError
from t2i.core.io import launched

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""Timeout of the other processes while the first one works. Torch's default is minutes."""


class Group:
    """The processes of this command, as the environment describes them (WORLD_SIZE).

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
    """

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        if launched.several():
            launched.check_complete()
            from accelerate import PartialState

            state = PartialState(cpu=best_device().type == "cpu", timeout=PATIENCE)
            self.rank, self.size = state.process_index, state.num_processes
            atexit.register(leave)

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that decides and reports (rank 0)."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self.first(lambda: None)

    def first(self, work: Callable[[], T]) -> T:
        """Run `work` in the first process only, and return its result in all of them.

        Args:
            work: Function to call. Its result must be picklable.

        Returns:
            The result of `work`, in every process.

        Raises:
            T2IError: `work` raised one: every process raises it (see the function `first`).
        """
        return first(work, self.rank, self.size)


def first(work: Callable[[], T], rank: int, size: int) -> T:
    """Run `work` in the first process only, and return its result in all of them.

    Args:
        work: Function that the first process calls, once all processes have called `first`. Its
            result must be picklable.
        rank: Number of this process, from 0.
        size: Number of processes.

    Returns:
        The result of `work`, in every process.

    Raises:
        T2IError: `work` raised one: every process raises a UserError if it was one, else a
            T2IError, with its message.
    """
    if size == 1:
        return work()
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState().wait_for_everyone()  # `work` may read files that the other processes write
    found: list[T | T2IError | None] = [None]
    if rank == 0:
        try:
            found = [work()]
        except T2IError as error:  # subclasses may not be picklable
            found = [
                UserError(str(error)) if isinstance(error, UserError) else T2IError(str(error))
            ]
    broadcast_object_list(found)
    (answer,) = found
    if isinstance(answer, T2IError):
        raise answer
    return answer  # type: ignore[return-value]


def everyones(own: T, size: int) -> list[T]:
    """Gather one object from each process in all of them.

    Args:
        own: The object of this process; picklable.
        size: Number of processes.

    Returns:
        The objects of all processes, by rank.
    """
    if size == 1:
        return [own]
    from torch import distributed

    found: list[Any] = [None] * size
    distributed.all_gather_object(found, own)
    return found


def leave() -> None:
    """Leave torch's process group, if this process is in one.

    The pause works around a crash of gloo at exit: its background thread needs the interpreter's
    lock to release the tensors of the last exchange, and aborts the program if the interpreter is
    already shutting down.
    """
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
        time.sleep(0.1)


@contextmanager
def set_variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable inside the block, and restore it afterwards.

    Args:
        name: Its name.
        value: Its value inside the block.

    Yields:
        Nothing.
    """
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
