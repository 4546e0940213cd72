"""The data contract: what a data set yields, and in which order it is visited. NumPy only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from t2i.core.noise import random_stream


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


class Dataset(ABC):
    """Captioned images by index. Must be picklable: loader workers get a copy.

    image_size: height and width of the images, pixels.
    endless: any index >= 0 is legal, and `len` is only the nominal length of an epoch.
    """

    image_size: int
    endless: bool = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Example: ...

    @abstractmethod
    def fingerprint(self) -> str:
        """A short string that changes when the data does; recorded with every run and every score."""

    def captions(self, index: int) -> tuple[str, ...]:
        """The captions of one example. To be overridden where they are to be had without the picture."""
        return self[index].captions

    def variant(self, index: int, number: int) -> Example | None:
        """Another picture of what example `index` shows: number 1, 2, ..., the same each time. None (the default)
        where a caption has but one picture. Real pictures of one caption are what generated ones are compared with."""
        return None

    def vocabulary(self) -> Iterable[str]:
        """Texts from which a vocabulary may be built. Default: all captions."""
        for index in range(len(self)):
            yield from self[index].captions


@dataclass(frozen=True)
class Visit:
    """One look at one example: the caption and the augmentation are functions of (seed, epoch, index)."""

    epoch: int
    index: int


def visits(dataset_length: int, endless: bool, seed: int, start: int) -> Iterator[Visit]:
    """Visits from number `start` on, for ever: order is a function of (seed, epoch), so resuming needs only `start`.

    A finite set is permuted anew each epoch. An endless one is read straight on: no example is seen twice.
    """
    if dataset_length < 1:
        raise ValueError("a data set must have at least one example")
    epoch, offset = divmod(start, dataset_length)
    while True:
        if endless:
            indexes: Iterable[int] = range(epoch * dataset_length + offset, (epoch + 1) * dataset_length)
        else:
            indexes = random_stream(seed, "order", epoch).permutation(dataset_length)[offset:].tolist()
        for index in indexes:
            yield Visit(epoch, index)
        epoch, offset = epoch + 1, 0


def visit_stream(seed: int, visit: Visit) -> np.random.Generator:
    """The random stream that belongs to one visit: caption choice first, then augmentation."""
    return random_stream(seed, "visit", visit.epoch, visit.index)
