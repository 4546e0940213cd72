"""Checks of a data set.

One that reads a folder is skipped unless the folder is known; `t2i datasets check` reads it.
"""

from __future__ import annotations

from functools import cached_property
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np

from t2i.core.interfaces.dataset import Dataset, Example
from t2i.core.kit.conformance.outcome import Skipped, need
from t2i.core.kit.conformance.subject import Part
from t2i.core.registry.choice import Choice
from t2i.core.runs.configure import open_dataset

EXAMPLES = 32
"""Examples of each split that are read."""

SIZES = (32, 48)
"""Image sizes at which the first split is opened, in pixels."""


class DataPart(Part):
    """A data set with its splits.

    Args:
        kind: "datasets".
        name: Name of the data set.
        folder: Its folder; None if it needs none, or the folder is not known.
    """

    def __init__(self, kind: str, name: str, folder: Path | None = None) -> None:
        super().__init__(kind, name)
        self._folder = folder

    def choice(self, **settings: Any) -> Choice[Any]:
        """Choose the data set, in its folder.

        Args:
            settings: Settings that differ from the defaults.

        Returns:
            The data set and its settings.
        """
        place = {} if self._folder is None else {"dir": str(self._folder)}
        return super().choice(**place, **settings)

    @cached_property
    def splits(self) -> dict[str, Dataset]:
        """The splits, open, by name. Without the folder that it needs the check is skipped."""
        if self.spec.needs_dir and self._folder is None:
            raise Skipped("it needs a folder: 't2i datasets check' reads one through")
        return {split: open_dataset(self.choice(), split) for split in self.spec.splits}


def examples(subject: DataPart) -> None:
    """Each split has examples: uint8 images of the requested size, with captions and unique keys.

    All examples of a split have the same extras. The images are (H, W, 3).

    Args:
        subject: The data set.

    Raises:
        Failed: The promise is broken.
        Skipped: The folder is not known.
    """
    for split, data in subject.splits.items():
        need(len(data) >= 1, f"split '{split}' is empty")
        found = [data[index] for index in range(min(EXAMPLES, len(data)))]
        for example in found:
            _sound(example, data.image_size, f"split '{split}', example '{example.key}'")
        need(
            len({example.key for example in found}) == len(found),
            f"split '{split}': two examples have one key",
        )
        extras = {tuple(sorted(example.extras)) for example in found}
        need(len(extras) == 1, f"split '{split}': some examples have other extras than others")
    for size in SIZES:
        data = open_dataset(subject.choice(image_size=size), subject.spec.splits[0])
        need(
            data[0].image.shape == (size, size, 3),
            f"with image_size={size} its images are {data[0].image.shape}",
        )


def _sound(example: Example, size: int, where: str) -> None:
    """Check the image and the captions of one example."""
    image = example.image
    said = f"{image.dtype} {image.shape}"
    need(
        image.shape == (size, size, 3) and image.dtype == np.uint8,
        f"{where} is {said}, not uint8 {(size, size, 3)}",
    )
    need(bool(example.captions), f"{where} has no caption")
    need(
        all(isinstance(caption, str) for caption in example.captions),
        f"{where} has a caption that is no text",
    )


def repeats(subject: DataPart) -> None:
    """Examples and fingerprints are the same each time, and each split has its own fingerprint.

    Args:
        subject: The data set.

    Raises:
        Failed: The promise is broken.
        Skipped: The folder is not known.
    """
    for split, data in subject.splits.items():
        again = open_dataset(subject.choice(), split)
        for index in range(min(4, len(data))):
            a, b = data[index], again[index]
            same = bool((a.image == b.image).all()) and (a.captions, a.key) == (b.captions, b.key)
            need(
                same,
                f"split '{split}': example {index} is another one when the set is opened again",
            )
            need(
                data.captions(index) == a.captions,
                f"split '{split}': captions({index}) are not those of the example",
            )
        need(
            data.fingerprint() == again.fingerprint(),
            f"split '{split}': the fingerprint changes though nothing does",
        )
    prints = {data.fingerprint() for data in subject.splits.values()}
    need(len(prints) == len(subject.splits), "two splits have one fingerprint")


def travels(subject: DataPart) -> None:
    """It can be sent to a loader's worker process (it is picklable).

    Args:
        subject: The data set.

    Raises:
        Skipped: The folder is not known.
    """
    for data in subject.splits.values():
        ForkingPickler.dumps(data)
