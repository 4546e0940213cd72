"""Load batches of a data set ahead of the training loop, in an order set by the seed alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from t2i.core.engine.reading_ahead import Failed, Readable, Thread, Workers
from t2i.core.errors import DataAway, UserError
from t2i.core.interfaces.broken import sound
from t2i.core.interfaces.dataset import BrokenExample, Dataset, Example
from t2i.core.interfaces.text import TextFeatures
from t2i.core.interfaces.visits import Visit, visit_stream, visits
from t2i.core.io.terminal import note
from t2i.core.settings.model import Augment

T = TypeVar("T")
RETRY = 1.0
"""Seconds between two attempts to read data that is away."""

PATIENCE = 600.0
"""Seconds after which data that is away is taken for broken."""


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
        choices: All captions of each example. Empty if `encoded` is given.
    """

    images: np.ndarray
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    extras: Mapping[str, Any]
    encoded: torch.Tensor | None = None
    text: TextFeatures | None = None
    broken: tuple[BrokenExample, ...] = ()
    choices: tuple[tuple[str, ...], ...] = ()


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


class Views(Readable[HostBatch]):
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
        images, captions, keys, extras, choices = [], [], [], [], []
        passed: list[BrokenExample] = []
        for visit in batch:
            example, broken = sound(self._dataset, visit.index, patient=self.patient)
            passed += broken
            caption, image = self.look(example, visit)
            captions.append(caption)
            images.append(image)
            keys.append(example.key)
            extras.append(example.extras)
            choices.append(example.captions)
        return HostBatch(
            np.stack(images),
            tuple(captions),
            tuple(keys),
            _collated(extras),
            broken=tuple(passed),
            choices=tuple(choices),
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


class Patient(Generic[T]):
    """Reads batches, and waits for data that is away for a while.

    Args:
        views: The data set.
        say: Receives a line when the data is away, and when it is back.
        waiting: Surrounds the time in which data is waited for. None: nothing does.
    """

    def __init__(
        self,
        views: Readable[T],
        say: Callable[[str], None] = note,
        waiting: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> None:
        self._views, self._say, self._waiting = views, say, waiting or nullcontext

    def __getitem__(self, batch: Sequence[Visit]) -> T:
        try:
            return self._views[batch]
        except DataAway as error:
            return self.when_back(batch, error)

    def when_back(self, batch: Sequence[Visit], error: DataAway) -> T:
        """Read a batch as soon as the data is back.

        When patience is over, what is away is broken, until a batch comes without waiting.

        Args:
            batch: The visits of the batch.
            error: What reading it raised.

        Returns:
            The batch.
        """
        if self._views.patient:
            self._say(f"warning: {error}: waiting for the data, {PATIENCE:.0f} s at most")
            with self._waiting():
                if (item := self._tried(batch)) is not None:
                    self._say("the data is back: going on")
                    return item
        return self._views[batch]

    def _tried(self, batch: Sequence[Visit]) -> T | None:
        """Try to read a batch until it can be read, or patience is over."""
        until = time.monotonic() + PATIENCE
        while self._views.patient:
            time.sleep(RETRY)
            try:
                return self._views[batch]
            except DataAway:
                self._views.patient = time.monotonic() < until
        return None

    def came(self) -> None:
        """Be patient again: a batch came without waiting."""
        self._views.patient = True


class Loader(Generic[T]):
    """An iterator over `views[visits]` that loads ahead; it must be closed.

    The result does not depend on the number of workers. It waits for data that is away for a while,
    and goes on if a worker dies.

    Args:
        views: The data set; it is indexed by a list of visits.
        plan: The visits of each item.
        workers: Number of worker processes. 0: a thread of this process loads.
        say: Receives what happens to the data or the workers, a line each.
        waiting: As for `Patient`.
    """

    def __init__(
        self,
        views: Readable[T],
        plan: Iterator[list[Visit]],
        workers: int,
        say: Callable[[str], None] = note,
        waiting: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> None:
        self._patient = Patient(views, say, waiting)
        self._ahead: Workers[T] | Thread[T] = (
            Workers(views, plan, workers, say) if workers else Thread(views, plan)
        )

    def __next__(self) -> T:
        item = next(self._ahead)
        if not isinstance(item, Failed):
            self._patient.came()
            return item
        if isinstance(item.error, DataAway):
            return self._patient.when_back(item.batch, item.error)
        raise item.error

    def close(self) -> None:
        """Stop loading: end the thread or the worker processes."""
        self._ahead.close()
