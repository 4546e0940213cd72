"""Load batches of a data set ahead of the training loop, in an order set by the seed alone."""

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
WATCH = 0.5  # seconds between two checks of a worker that its main process is alive


@dataclass(frozen=True)
class HostBatch:
    """A batch in host memory, before it goes to the device.

    Args:
        images: uint8 (B, H, W, 3); (B, 0, 0, 3) if `encoded` is given.
        captions: The chosen caption of each image.
        keys: The key of each example.
        extras: The data set's extras: tensors (B, ...) or tuples of B values, by name.
        encoded: Stored encodings (B, ...) that take the place of the images (`Trainer.encode`).
            None: there are none.
        text: Stored features of the captions. None: there are none.
        broken: Broken examples that were skipped to make the batch.
    """

    images: np.ndarray
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    extras: Mapping[str, Any]
    encoded: torch.Tensor | None = None
    text: TextFeatures | None = None
    broken: tuple[BrokenExample, ...] = ()


@dataclass(frozen=True)
class BatchShard:
    """The rows of the global batch that a process takes.

    Args:
        total: Images in the global batch, a multiple of `parts * world`.
        parts: Micro-batches into which the batch is split (`accumulate`).
        rank: Index of the process, from 0.
        world: Number of processes.
    """

    total: int
    parts: int = 1
    rank: int = 0
    world: int = 1

    @property
    def count(self) -> int:
        """Images of this process in each micro-batch."""
        return self.total // self.parts // self.world

    def start(self, part: int) -> int:
        """Return where this process's rows of a micro-batch begin.

        Args:
            part: Index of the micro-batch, from 0.

        Returns:
            Index of the first row in the global batch, from 0.
        """
        return part * (self.total // self.parts) + self.rank * self.count


class Views(TorchDataset[HostBatch]):
    """A data set with captions chosen and images augmented.

    `views[visits]` loads a whole micro-batch.

    Args:
        dataset: The data set, or a list of sound examples.
        seed: Seed of the choice of captions and of the augmentation.
        image_size: Height and width of the images for training, in pixels.
        augment: How images are augmented.
    """

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
        """Choose the caption and augment the image of one example.

        Args:
            example: The example.
            visit: The visit, which with the seed determines the result.

        Returns:
            The caption, and the image as uint8 (image_size, image_size, 3).

        Raises:
            UserError: The example's image has another size or type than the data set declares.
        """
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
                f"data set: image '{example.key}' is {found}, not {wanted}: "
                "mend it or its image_size"
            )

    def _augmented(self, image: np.ndarray, stream: np.random.Generator) -> np.ndarray:
        """Crop the image at random to the training size, and mirror it half of the time if set."""
        spare = image.shape[0] - self._image_size
        if spare:
            top, left = stream.integers(spare + 1, size=2)
            image = image[top : top + self._image_size, left : left + self._image_size]
        if self._augment.flip and stream.random() < 0.5:
            image = image[:, ::-1]
        return image


def _collated(extras: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack numbers, and arrays of equal shape, as tensors; make a tuple of anything else."""
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
    """Yield the visits of this process, one micro-batch at a time, without end.

    Args:
        dataset: The data set.
        seed: Seed of the order.
        shard: This process's part of each batch.
        first: Number of images that training has used already, over all processes.

    Yields:
        The visits of one micro-batch.
    """
    stream = visits(dataset, seed, first)
    while True:
        whole = list(islice(stream, shard.total))
        for part in range(shard.parts):
            start = shard.start(part)
            yield whole[start : start + shard.count]


class Loader(Generic[T]):
    """An iterator over `views[visits]` that loads ahead; it must be closed.

    The result does not depend on the number of workers.

    Args:
        views: The data set; it is indexed by a list of visits.
        plan: The visits of each item.
        workers: Number of worker processes. 0: a thread of this process loads.
    """

    def __init__(self, views: TorchDataset[T], plan: Iterator[list[Visit]], workers: int) -> None:
        if workers:
            loader = DataLoader(
                _Guarded(views), batch_size=None, sampler=_Endless(plan), num_workers=workers,
                prefetch_factor=AHEAD, worker_init_fn=_quiet_worker,
                # A generator of its own: else a new loader draws from the one that training uses.
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
        """Stop loading: end the thread or the worker processes."""
        self._close()


class _Guarded(TorchDataset[T | T2IError]):
    """Returns our own errors as values: torch would wrap them in a worker's traceback."""

    def __init__(self, views: TorchDataset[T]) -> None:
        self._views = views

    def __getitem__(self, batch: Sequence[Visit]) -> T | T2IError:
        try:
            return self._views[batch]
        except T2IError as error:
            return error


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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
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


class _Thread(Generic[T]):
    """Loads ahead in a thread of this process. Exceptions of the data set reach the caller."""

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
