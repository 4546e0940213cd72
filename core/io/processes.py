"""The processes that do one command together: one, or those of a `torchrun`.

They share the folder OUT. The first one decides and speaks; the others draw their share of the images. (Training has
its processes from accelerate: `core/engine/session.py`.)
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from t2i.core.devices import best_device
from t2i.core.errors import T2IError, UserError

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long the others wait while the first one works: torch would lose patience after minutes."""


class Group:
    """The processes of this command. size: how many. rank: which one this is, from 0."""

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            state = PartialState(cpu=best_device().type == "cpu", timeout=PATIENCE)
            self.rank, self.size = state.process_index, state.num_processes
            atexit.register(leave)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wait(self) -> None:
        """Until all have come here."""
        self.first(lambda: None)

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, in all of them. What the first one refuses, all refuse."""
        return first(work, self.rank, self.size)


def first(work: Callable[[], T], rank: int, size: int) -> T:
    """What `work` gives in the first of several processes, in all of them. What the first one refuses, all refuse.

    Args:
        work: called by the first process alone, when all have come here.
        rank: of this process, from 0.
        size: number of processes.
    """
    if size == 1:
        return work()
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState().wait_for_everyone()  # what the first one is about to read, the others have written
    found: list[T | T2IError | None] = [None]
    if rank == 0:
        try:
            found = [work()]
        except T2IError as error:  # other kinds may not travel
            found = [
                UserError(str(error)) if isinstance(error, UserError) else T2IError(str(error))
            ]
    broadcast_object_list(found)
    (answer,) = found
    if isinstance(answer, T2IError):
        raise answer
    return answer  # type: ignore[return-value]


def everyones(own: T, size: int) -> list[T]:
    """What each of `size` processes has, in their order, in all of them."""
    if size == 1:
        return [own]
    from torch import distributed

    found: list[Any] = [None] * size
    distributed.all_gather_object(found, own)
    return found


def leave() -> None:
    """Leaves the process group, if this process is still in it. A thread of gloo's that comes to release the tensors of
    the last exchange only when the interpreter is already ending aborts the program: the pause gives it the
    interpreter's lock before that."""
    from torch import distributed

    if distributed.is_initialized():
        distributed.destroy_process_group()
        time.sleep(0.1)
