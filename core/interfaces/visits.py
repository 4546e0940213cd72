"""The order in which training visits the examples of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from t2i.core.interfaces.dataset import Dataset


@dataclass(frozen=True)
class Visit:
    """One visit of training to one example.

    The caption and the augmentation of a visit depend on (seed, epoch, index) alone.

    Args:
        epoch: Number of the epoch, from 0.
        index: Index of the example.
    """

    epoch: int
    index: int


def visits(dataset: Dataset, seed: int, start: int) -> Iterator[Visit]:
    """Iterate over the visits of training without end.

    A finite data set is visited in another order each epoch (`Dataset.order`). An endless one is
    read straight on, so that no example is seen twice. The order depends on the seed alone:
    resuming needs only `start`.

    Args:
        dataset: The data set.
        seed: Seed of the run.
        start: Number of the first visit, from 0.

    Yields:
        One visit after the other.

    Raises:
        ValueError: The data set is empty.
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
    """Make the random stream of one visit.

    It chooses the caption first, then the augmentation.

    Args:
        seed: Seed of the run.
        visit: The visit.

    Returns:
        The stream at its beginning.
    """
    from t2i.core.interfaces.noise import random_stream  # it imports torch

    return random_stream(seed, "visit", visit.epoch, visit.index)
