"""Read batches ahead of the training loop, in a thread or in worker processes."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from types import FrameType
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from t2i.core.engine.signals import CAUGHT
from t2i.core.errors import DataAway, T2IError, UserError
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.interfaces.visits import Visit
from t2i.core.registry.blame import crash

T = TypeVar("T")
AHEAD = 4  # batches made ahead
WATCH = 0.5  # seconds between two checks of a worker that its main process is alive
KILLED = -getattr(signal, "SIGKILL", 9)  # exit code of the killed; Windows has no such signal
DEATHS = 3  # of workers in a row, without a batch between them, until no more are started


class Readable(TorchDataset[T]):
    """What a loader reads: it is indexed by the visits of a batch.

    Attributes:
        patient: Whether data that is away raises DataAway. False: it counts as broken.
    """

    patient: bool = True

    @abstractmethod
    def __getitem__(self, batch: Sequence[Visit]) -> T: ...


@dataclass(frozen=True)
class Failed:
    """A batch that could not be read.

    Args:
        batch: Its visits.
        error: The reason.
    """

    batch: Sequence[Visit]
    error: Exception


class Guarded(TorchDataset[T | Failed]):
    """Returns errors as values: torch would wrap them in a worker's traceback.

    Args:
        views: What is read.
    """

    def __init__(self, views: Readable[T]) -> None:
        self._views = views

    def __getitem__(self, batch: Sequence[Visit]) -> T | Failed:
        try:
            return self._views[batch]
        except Exception as error:
            return Failed(batch, _portable(error))


def _portable(error: Exception) -> Exception:
    """Return an error that a worker process can send, whatever a plugin raised."""
    if type(error) in (T2IError, UserError, DataAway, BrokenExample):
        return error
    if isinstance(error, T2IError):
        return UserError(str(error)) if isinstance(error, UserError) else T2IError(str(error))
    if isinstance(error, OSError) and error.errno:
        name = error.filename if isinstance(error.filename, str) else None
        return OSError(error.errno, error.strerror, name)
    return MemoryError(str(error)) if isinstance(error, MemoryError) else crash(error)


class Thread(Generic[T]):
    """Reads ahead in a thread of this process.

    Args:
        views: What is read.
        plan: The visits of each batch.
    """

    def __init__(self, views: Readable[T], plan: Iterator[list[Visit]]) -> None:
        self._queue: queue.Queue[T | Failed] = queue.Queue(AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(Guarded(views), plan), daemon=True)
        self._thread.start()

    def _run(self, views: Guarded[T], plan: Iterator[list[Visit]]) -> None:
        try:
            for batch in plan:
                if not self._put(views[batch]):
                    return
        except Exception as error:  # of the data set's order
            self._put(Failed((), error))

    def _put(self, item: T | Failed) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __next__(self) -> T | Failed:
        return self._queue.get()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()


class Workers(Generic[T]):
    """Reads ahead in worker processes, and starts them anew if one of them dies.

    If they die again and again without a batch between, no more are started. After SIGKILL a thread
    of this process takes over, which needs less memory.

    Args:
        views: What is read.
        plan: The visits of each batch.
        count: Number of worker processes, at least 1.
        say: Receives a line about each death.
    """

    def __init__(
        self,
        views: Readable[T],
        plan: Iterator[list[Visit]],
        count: int,
        say: Callable[[str], None],
    ) -> None:
        self._views, self._plan, self._count, self._say = views, plan, count, say
        self._open: deque[list[Visit]] = deque()  # handed to workers, not read by us
        self._deaths = 0
        self._thread: Thread[T] | None = None
        self._start()

    def _start(self) -> None:
        guarded: Guarded[T] = Guarded(self._views)
        loader = DataLoader(
            guarded, batch_size=None, sampler=_Endless(self._handed()),
            num_workers=self._count, prefetch_factor=AHEAD, worker_init_fn=_quiet_worker,
            # A generator of its own: else a new loader draws from the one that training uses.
            generator=torch.Generator(),
        )  # fmt: skip
        self._iterator: Any = iter(loader)
        self._deaf = _OnlyWhileWaiting()

    def _handed(self) -> Iterator[list[Visit]]:
        """Yield the batches that dead workers left, then those of the plan."""
        left = list(self._open)
        self._open.clear()
        for batch in chain(left, self._plan):
            self._open.append(batch)
            yield batch

    def __next__(self) -> T | Failed:
        while self._thread is None:
            try:
                with self._deaf:
                    if self._dead():
                        raise RuntimeError("a worker is dead")
                    item: T | Failed = next(self._iterator)
            except RuntimeError:
                if not self._dead():
                    raise
                self._begin_again()
                continue
            self._open.popleft()
            self._deaths = 0
            return item
        return next(self._thread)

    def _dead(self) -> list[int]:
        """Return the exit codes of the workers that have ended."""
        workers = self._iterator._workers
        return [worker.exitcode for worker in workers if not worker.is_alive()]

    def _begin_again(self) -> None:
        code = self._dead()[0]
        told = f"a process that loads data {_end(code)}"
        self._deaths += 1
        self._close_workers()
        if self._deaths < DEATHS:
            self._say(f"warning: {told}{_memory(code)}: started anew")
            self._start()
        elif code == KILLED:
            self._say(f"warning: {told} again and again{_memory(code)}: loading without it")
            self._thread = Thread(self._views, chain(list(self._open), self._plan))
        else:
            raise T2IError(
                f"{told} {self._deaths} times while it read the same images, the first of them "
                f"number {self._open[0][0].index}: 't2i datasets check' finds the file"
            )

    def _close_workers(self) -> None:
        for worker in self._iterator._workers:
            worker.kill()  # one may wait for ever for what the dead one held
        self._close_iterator()

    def _close_iterator(self) -> None:
        try:
            self._iterator._shutdown_workers()
        finally:
            self._deaf.restore()

    def close(self) -> None:
        """End the worker processes, or the thread that took over."""
        if self._thread:
            self._thread.close()
        else:
            self._close_iterator()


def _end(code: int) -> str:
    """Say how a process with an exit code ended."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:  # the signals for real time have no names
        return f"was ended by signal {-code}"


def _memory(code: int) -> str:
    return " (out of memory? fewer --set workers take less)" if code == KILLED else ""


class _OnlyWhileWaiting:
    """Lets torch raise its exception about a dead worker only while the main thread waits for one.

    Torch raises it from its handler of SIGCHLD: anywhere, also in the midst of an update.
    """

    def __init__(self) -> None:
        self._listens = False
        self._main = threading.current_thread() is threading.main_thread()
        self._number: int | None = getattr(signal, "SIGCHLD", None)  # Windows has none
        self._of_torch = signal.getsignal(self._number) if self._number else None
        if self._main and self._number and callable(self._of_torch):
            signal.signal(self._number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._listens and callable(self._of_torch):
            self._of_torch(number, frame)

    def __enter__(self) -> None:
        self._listens = True

    def __exit__(self, *_: object) -> None:
        self._listens = False

    def restore(self) -> None:
        if self._main and self._number:
            signal.signal(self._number, self._of_torch)


class _Endless:
    """The plan as a sampler, since DataLoader needs an iterable, not an iterator."""

    def __init__(self, plan: Iterator[list[Visit]]) -> None:
        self._plan = plan

    def __iter__(self) -> Iterator[list[Visit]]:
        return self._plan

    def __len__(self) -> int:
        return 2**62


def _quiet_worker(_: int) -> None:
    """Ignore signals in a worker: the main process saves first and then ends its workers."""
    for number in CAUGHT:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End a worker whose main process was killed.

    torch's own check is not enough: a worker that ends waits until all that it loaded has been
    read, which nobody does any more.
    """
    parent = multiprocessing.parent_process()
    while parent and os.getppid() == parent.pid:
        time.sleep(WATCH)
    os._exit(1)
