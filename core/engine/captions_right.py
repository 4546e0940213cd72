"""Captions that are tested while training, on data whose images can be read exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import numpy as np

from t2i.core.interfaces.dataset import BrokenExample, Dataset
from t2i.core.models.model import Model
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry

TESTED = 32
"""Captions that are tested, the first ones of the split that is not trained on."""

Reader = Callable[[np.ndarray, Sequence[str]], Sequence[bool]]
"""Tells of images, uint8 (N, H, W, 3), whether each shows all that its caption says."""


@dataclass(frozen=True)
class CaptionTest:
    """Captions, and the exact reader of a data set.

    Args:
        captions: The captions, always the same ones in a run.
        reader: The reader.
        seed: Seed of the samples' noise.
    """

    captions: tuple[str, ...]
    reader: Reader
    seed: int

    @classmethod
    def of(cls, data: str, dataset: Dataset, seed: int) -> CaptionTest | None:
        """Make the test of a data set.

        Args:
            data: Registered name of the data set.
            dataset: Its split that is not trained on.
            seed: Seed of the samples' noise.

        Returns:
            The test. None if the data set has no reader.
        """
        path = registry().datasets[data].reader
        if not path:
            return None
        return cls(tuple(islice(_first_captions(dataset), TESTED)), import_object(path), seed)

    def right(self, model: Model) -> int:
        """Sample an image of each caption, and count those that show all of it.

        Args:
            model: The model, in evaluation mode.

        Returns:
            The number of captions that are right.
        """
        batches = model.stream(self.captions, n=1, seed=self.seed)
        drawn = sorted((one for batch in batches for one in batch), key=lambda one: one.prompt)
        return sum(self.reader(np.stack([one.image for one in drawn]), self.captions))


def _first_captions(dataset: Dataset) -> Iterator[str]:
    for index in range(len(dataset)):
        with suppress(BrokenExample):
            yield dataset.captions(index)[0]
