"""The two sets that are compared: images, statistics of images, or both in one file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2i.benchmarks.score.extraction import BATCH, Extractors
from t2i.benchmarks.score.images.remarks import Seen
from t2i.benchmarks.score.images.sources import Images, MemoryImages, open_images
from t2i.benchmarks.score.images.statistics import Statistics, read_statistics
from t2i.core.errors import UserError

PIXELS = 2**26
"""Pixels of the images that go through a network at once: 64 images of 1024 x 1024."""

Given = str | Path | Sequence[Any]
"""A set as the user gives it: a path, or images in memory."""

Batch = tuple[list[int], list[np.ndarray]]
"""Images, uint8 (H, W, 3) each, with their numbers."""


@dataclass
class Side:
    """One of the two sets.

    Args:
        where: Where it is, for people.
        images: The images. None: only their statistics are known.
        statistics: Statistics of their features. None: they are computed from the images.
        seen: What was seen of the images so far.
    """

    where: str
    images: Images | None
    statistics: Statistics | None
    seen: Seen = field(default_factory=Seen)

    @property
    def count(self) -> int | None:
        """The number of images. None: unknown."""
        if self.images is not None:
            return len(self.images)
        return self.statistics.count if self.statistics else None

    def document(self) -> dict[str, Any]:
        """Describe the set for results.

        Returns:
            Where it is, number and sizes of the images, whether only statistics are known, and what
            was passed over.
        """
        return {
            "where": self.where,
            "count": self.count,
            "size": self.seen.size_text(),
            "statistics": self.images is None,
            "passed_over": {} if self.images is None else dict(self.images.passed_over),
        }

    def batches(self, progress: Callable[[int, int], None]) -> Iterator[Batch]:
        """Read the images.

        Args:
            progress: Receives how many images are read, and how many there are.

        Yields:
            Batches in order, of at most BATCH images and about PIXELS.
        """
        assert self.images is not None
        rows: list[int] = []
        held: list[np.ndarray] = []
        for row, image in enumerate(self.images):
            self.seen.add(image)
            rows.append(row)
            held.append(image)
            if len(held) == BATCH or sum(i.shape[0] * i.shape[1] for i in held) > PIXELS:
                yield rows, held
                progress(row + 1, len(self.images))
                rows, held = [], []
        if held:
            yield rows, held
            progress(len(self.images), len(self.images))


def open_side(given: Given, recursive: bool, white: bool = False) -> Side:
    """Open a set.

    Args:
        given: A folder, a .zip, .npz or .npy file, or images in memory.
        recursive: Whether subfolders of a folder are read too.
        white: Whether transparent images are laid on white, instead of dropping the transparency.

    Returns:
        The set.

    Raises:
        UserError: It does not exist, or holds neither images nor statistics.
    """
    if not isinstance(given, str | Path):
        images = MemoryImages(given)
        images.white = white
        return Side(images.where, images, None)
    path = Path(given).expanduser()
    found = open_images(path, recursive)
    statistics = read_statistics(path) if path.suffix.lower() == ".npz" and path.is_file() else None
    if found is None and statistics is None:
        raise UserError(
            f"{path}: it holds neither images (arr_0, uint8 (N, height, width, 3)) nor statistics "
            "(mu and sigma)"
        )
    if found is not None:
        found.white = white
    return Side(str(path), found, statistics)


def features_of(
    images: Sequence[np.ndarray],
    names: set[str],
    extractors: Extractors,
    captions: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Extract features of images that may have several sizes, with one call for each size.

    Args:
        images: The images, uint8 (H, W, 3) each.
        names: Names of the features.
        extractors: The extractors.
        captions: A caption for each image, for networks that read both. Empty: there are none.

    Returns:
        The features by name, float32 (B, D), in the order of the images.
    """
    shapes: dict[tuple[int, ...], list[int]] = {}
    for row, image in enumerate(images):
        shapes.setdefault(image.shape, []).append(row)
    if len(shapes) == 1:
        return extractors(np.stack(images), names, captions)
    parts = [
        extractors(
            np.stack([images[r] for r in rows]), names, [captions[r] for r in rows if captions]
        )
        for rows in shapes.values()
    ]
    order = torch.tensor([row for rows in shapes.values() for row in rows]).argsort()
    return {name: torch.cat([part[name] for part in parts])[order] for name in names}
