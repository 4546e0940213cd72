"""The data contract: what a data set yields, and in which order it is visited. NumPy only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from t2i.core.errors import T2IError, UserError
from t2i.core.interfaces.noise import random_stream


@dataclass(frozen=True)
class Example:
    """One captioned image.

    image: uint8 (H, W, 3), sRGB. captions: at least one. key: unique within the data set, stable.
    extras: whatever else the data set knows (class id, precomputed vectors), the same keys in every example.
    """

    image: np.ndarray
    captions: tuple[str, ...]
    key: str
    extras: Mapping[str, Any] = field(default_factory=dict)


class BrokenExample(T2IError):
    """An example whose file cannot be read, or holds no image or no caption. where: the file; reason: in words.

    Raised by `Dataset.__getitem__`. Whoever reads takes another example in its place (`sound`) and counts it.
    """

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(
            where, reason
        )  # both are its arguments, so that it can be sent from a worker process
        self.where, self.reason = where, reason

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True)
class Original:
    """The file that an example is made of. mode: of the image, in Pillow's words. digest: a hash of its bytes."""

    width: int
    height: int
    mode: str
    digest: bytes


class Dataset(ABC):
    """Captioned images by index. Must be picklable: loader workers get a copy.

    image_size: height and width of the images, pixels.
    endless: any index >= 0 is legal, and `len` is only the nominal length of an epoch.
    max_broken: share of the examples that may be broken (`DataConfig.max_broken`, set when it is opened).
    """

    image_size: int
    endless: bool = False
    max_broken: float = 0.01

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Example: ...

    @abstractmethod
    def fingerprint(self) -> str:
        """A short string that changes when the data does; recorded with every run and every score."""

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of one example. To be overridden where they are to be had without the image."""
        return self[index].captions

    def order(self, seed: int, epoch: int, start: int = 0) -> Iterable[int]:
        """The indexes of one epoch in the order of training, from position `start` on: a function of (seed, epoch),
        with each index below the length once. Default: permuted. To be overridden where near visits should lie near
        one another."""
        indexes: list[int] = (
            random_stream(seed, "order", epoch).permutation(len(self))[start:].tolist()
        )
        return indexes

    def variant(self, index: int, number: int) -> Example | None:
        """Another image of what example `index` shows: number 1, 2, ..., the same each time. None (the default)
        where a caption has but one image. Real images of one caption are what generated ones are compared with."""
        return None

    def vocabulary(self) -> Iterable[str]:
        """Texts from which a vocabulary may be built. Default: all captions of examples that are sound."""
        for index in range(len(self)):
            try:
                yield from self.captions(index)
            except BrokenExample:
                continue

    def original(self, index: int) -> Original | None:
        """What the file of an example is before it becomes one, for `t2i datasets check`. None (the default) where
        there is none. BrokenExample as `__getitem__`."""
        return None

    def prepare(self, say: Callable[[str], None]) -> None:  # noqa: B027
        """Called before the set is read through, in every process alike: the moment to make what speeds up reading
        (a cache of resized images). say: takes a line of progress. Default: nothing."""


def sound(
    dataset: Dataset | Sequence[Example], index: int
) -> tuple[Example, tuple[BrokenExample, ...]]:
    """The example of that index, or the next one that is sound if it is broken (past the end, from the beginning on),
    with what was passed over: a function of data set and index alone.

    UserError if more than `max_broken` of them follow one another.
    """
    passed: list[BrokenExample] = []
    while True:
        try:
            return dataset[index], tuple(passed)
        except BrokenExample as error:
            assert isinstance(dataset, Dataset)  # examples in a list are sound
            passed.append(error)
            refuse_if_too_many(dataset, passed)
            index = index + 1 if dataset.endless else (index + 1) % len(dataset)


def refuse_if_too_many(dataset: Dataset, broken: Sequence[BrokenExample]) -> None:
    """UserError if these are more than the share of the data set that may be broken."""
    if len(broken) > dataset.max_broken * len(dataset):
        raise UserError(
            f"data set: {len(broken)} or more of {len(dataset)} examples are broken, a share above max_broken = "
            f"{dataset.max_broken:g}; one is {broken[-1]}; 't2i datasets check' lists all: mend them, or raise "
            "data.max_broken"
        )


class Broken:
    """The distinct broken examples of a data set that were met so far, each told once.

    say: takes a line for each. note: takes each, to keep it. known: those of an earlier session.
    """

    def __init__(
        self, dataset: Dataset, say: Callable[[str], None], note: Callable[[BrokenExample], None] | None = None,
        known: Iterable[BrokenExample] = (),
    ) -> None:  # fmt: skip
        self._dataset, self._say, self._note = dataset, say, note
        self._met = {error.where: error for error in known}

    def __len__(self) -> int:
        return len(self._met)

    def add(self, broken: Iterable[BrokenExample]) -> None:
        """UserError if they are more than `max_broken` of the data set by now."""
        fresh = {error.where: error for error in broken if error.where not in self._met}
        if not fresh:
            return
        for error in fresh.values():
            self._say(f"warning: broken, another example takes its place: {error}")
            if self._note:
                self._note(error)
        self._met |= fresh
        refuse_if_too_many(self._dataset, list(self._met.values()))


class SoundDataset(Dataset):
    """A data set as it is read by one process: what is broken is told and counted, and the next example taken."""

    def __init__(self, dataset: Dataset, say: Callable[[str], None]) -> None:
        self._dataset, self._broken = dataset, Broken(dataset, say)
        self.image_size, self.endless, self.max_broken = (
            dataset.image_size,
            dataset.endless,
            dataset.max_broken,
        )

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Example:
        example, broken = sound(self._dataset, index)
        self._broken.add(broken)
        return example

    def fingerprint(self) -> str:
        return self._dataset.fingerprint()

    def captions(self, index: int) -> tuple[str, ...]:
        try:
            return self._dataset.captions(index)
        except BrokenExample:
            return self[index].captions

    def order(self, seed: int, epoch: int, start: int = 0) -> Iterable[int]:
        return self._dataset.order(seed, epoch, start)

    def variant(self, index: int, number: int) -> Example | None:
        try:
            return self._dataset.variant(index, number)
        except BrokenExample as error:
            self._broken.add([error])
            return None

    def vocabulary(self) -> Iterable[str]:
        return self._dataset.vocabulary()


@dataclass(frozen=True)
class Visit:
    """One look at one example: the caption and the augmentation are functions of (seed, epoch, index)."""

    epoch: int
    index: int


def visits(dataset: Dataset, seed: int, start: int) -> Iterator[Visit]:
    """Visits from number `start` on, for ever: order is a function of (seed, epoch), so resuming needs only `start`.

    A finite set comes in another order each epoch. An endless one is read straight on: no example is seen twice.
    """
    length = len(dataset)
    if length < 1:
        raise ValueError("a data set must have at least one example")
    epoch, offset = divmod(start, length)
    while True:
        if dataset.endless:
            indexes: Iterable[int] = range(epoch * length + offset, (epoch + 1) * length)
        else:
            indexes = dataset.order(seed, epoch, offset)
        for index in indexes:
            yield Visit(epoch, index)
        epoch, offset = epoch + 1, 0


def visit_stream(seed: int, visit: Visit) -> np.random.Generator:
    """The random stream that belongs to one visit: caption choice first, then augmentation."""
    return random_stream(seed, "visit", visit.epoch, visit.index)
