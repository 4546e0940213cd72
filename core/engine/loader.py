"""Batches of a data set, in an order that depends on the seed alone, made ahead of the training loop."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from t2i.core.errors import T2IError, UserError
from t2i.core.interfaces.dataset import (
    BrokenExample,
    Dataset,
    Example,
    Visit,
    sound,
    visit_stream,
    visits,
)
from t2i.core.interfaces.text import TextFeatures
from t2i.core.settings import Augment

T = TypeVar("T")
AHEAD = 4  # batches made ahead
WATCH = 0.5  # seconds between a worker's looks after its main process


@dataclass(frozen=True)
class HostBatch:
    """A batch before it goes to the device. images: uint8 (B, H, W, 3). encoded, text: what was stored in place of the
    images and for the captions, where it was. broken: what was passed over to make it."""

    images: np.ndarray
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    extras: Mapping[str, Any]
    encoded: torch.Tensor | None = None
    text: TextFeatures | None = None
    broken: tuple[BrokenExample, ...] = ()


@dataclass(frozen=True)
class BatchShard:
    """Which rows of the global batch of `total` images a process takes, in `parts` micro-batches."""

    total: int
    parts: int = 1
    rank: int = 0
    world: int = 1

    @property
    def count(self) -> int:
        return self.total // self.parts // self.world

    def start(self, part: int) -> int:
        return part * (self.total // self.parts) + self.rank * self.count


class Views(TorchDataset[HostBatch]):
    """A data set as the trainer sees it: a caption chosen, the image augmented, whole micro-batches at once."""

    def __init__(
        self, dataset: Dataset | Sequence[Example], seed: int, image_size: int, augment: Augment
    ) -> None:
        self._dataset = dataset
        self._seed = seed
        self._image_size = image_size
        self._augment = augment

    def __getitem__(self, batch: Sequence[Visit]) -> HostBatch:
        images, captions, keys, extras = [], [], [], []
        passed: list[BrokenExample] = []
        for visit in batch:
            example, broken = sound(self._dataset, visit.index)
            passed += broken
            caption, image = self.look(example, visit)
            captions.append(caption)
            images.append(image)
            keys.append(example.key)
            extras.append(example.extras)
        stacked = np.stack(images)
        return HostBatch(
            stacked, tuple(captions), tuple(keys), _collated(extras), broken=tuple(passed)
        )

    def look(self, example: Example, visit: Visit) -> tuple[str, np.ndarray]:
        """The caption and the image that a visit to an example sees."""
        self._check(example)
        stream = visit_stream(self._seed, visit)
        caption = example.captions[int(stream.integers(len(example.captions)))]
        return caption, self._augmented(example.image, stream)

    def _check(self, example: Example) -> None:
        size = round(self._image_size * self._augment.scale)
        if example.image.shape != (size, size, 3) or example.image.dtype != np.uint8:
            found, wanted = (
                f"{example.image.dtype} {example.image.shape}",
                f"uint8 {(size, size, 3)}",
            )
            raise UserError(
                f"data set: image '{example.key}' is {found}, not {wanted}: mend it or its image_size"
            )

    def _augmented(self, image: np.ndarray, stream: np.random.Generator) -> np.ndarray:
        """A random crop of the image to the training size, mirrored half of the time if so set."""
        spare = image.shape[0] - self._image_size
        if spare:
            top, left = stream.integers(spare + 1, size=2)
            image = image[top : top + self._image_size, left : left + self._image_size]
        if self._augment.flip and stream.random() < 0.5:
            image = image[:, ::-1]
        return image


def _collated(extras: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Numbers and arrays of one shape stacked as tensors, anything else as a tuple."""
    return {name: _stacked([extra[name] for extra in extras]) for name in extras[0]}


def _stacked(values: Sequence[Any]) -> torch.Tensor | tuple[Any, ...]:
    if not all(isinstance(value, (bool, int, float, np.number, np.ndarray)) for value in values):
        return tuple(values)
    arrays = [np.asarray(value) for value in values]
    if len({array.shape for array in arrays}) > 1 or arrays[0].dtype.kind not in "biuf":
        return tuple(values)
    stacked = torch.from_numpy(np.stack(arrays))
    return stacked.float() if stacked.dtype == torch.float64 else stacked


def batch_visits(
    dataset: Dataset, seed: int, shard: BatchShard, first: int
) -> Iterator[list[Visit]]:
    """This process's visits, micro-batch by micro-batch, after the `first` images that training has seen."""
    stream = visits(dataset, seed, first)
    while True:
        whole = list(islice(stream, shard.total))
        for part in range(shard.parts):
            start = shard.start(part)
            yield whole[start : start + shard.count]


class Loader(Generic[T]):
    """`views[visits]` for each item of the plan, made ahead by a thread (workers = 0) or by worker processes: the same
    either way. Close it."""

    def __init__(self, views: TorchDataset[T], plan: Iterator[list[Visit]], workers: int) -> None:
        if workers:
            loader = DataLoader(
                _Guarded(views), batch_size=None, sampler=_Endless(plan), num_workers=workers, prefetch_factor=AHEAD,
                worker_init_fn=_quiet_worker,
                # Its own, so that making a loader draws no number from the generator that training uses.
                generator=torch.Generator(),
            )  # fmt: skip
            self._batches: Iterator[T | BaseException] = iter(loader)
            self._close: Callable[[], None] = self._batches._shutdown_workers  # type: ignore[attr-defined]
        else:
            thread: _Thread[T] = _Thread(views, plan)
            self._batches, self._close = thread, thread.close

    def __next__(self) -> T:
        item = next(self._batches)
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        self._close()


class _Guarded(TorchDataset[T | T2IError]):
    """Hands our own errors over as values: torch would wrap them in a worker's traceback."""

    def __init__(self, views: TorchDataset[T]) -> None:
        self._views = views

    def __getitem__(self, batch: Sequence[Visit]) -> T | T2IError:
        try:
            return self._views[batch]
        except T2IError as error:
            return error


class _Endless:
    """The plan as a sampler: DataLoader wants something that it may ask for an iterator."""

    def __init__(self, plan: Iterator[list[Visit]]) -> None:
        self._plan = plan

    def __iter__(self) -> Iterator[list[Visit]]:
        return self._plan

    def __len__(self) -> int:
        return 2**62


def _quiet_worker(_: int) -> None:
    """A signal to the whole process group is the main process's to answer: it saves, then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """Ends a worker whose main process was killed. torch's own watch over it is not enough: at its end a worker waits
    until someone has read all that it has made, which is now nobody."""
    parent = multiprocessing.parent_process()
    while parent and os.getppid() == parent.pid:
        time.sleep(WATCH)
    os._exit(1)


class _Thread(Generic[T]):
    """Makes batches ahead in a thread of this process. An exception of the data set is raised in the caller."""

    def __init__(self, views: TorchDataset[T], plan: Iterator[list[Visit]]) -> None:
        self._queue: queue.Queue[T | BaseException] = queue.Queue(AHEAD)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(views, plan), daemon=True)
        self._thread.start()

    def _run(self, views: TorchDataset[T], plan: Iterator[list[Visit]]) -> None:
        try:
            for batch in plan:
                if not self._put(views[batch]):
                    return
        except BaseException as error:
            self._put(error)

    def _put(self, item: T | BaseException) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[T | BaseException]:
        return self

    def __next__(self) -> T | BaseException:
        return self._queue.get()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
