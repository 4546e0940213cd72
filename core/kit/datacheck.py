"""Reading a whole data set, to report its content, its duplicates and its broken examples."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from t2i.core.engine.loader import Loader
from t2i.core.engine.reading_ahead import Readable
from t2i.core.errors import UserError
from t2i.core.interfaces.broken import too_many_broken
from t2i.core.interfaces.dataset import BrokenExample, Contents, Dataset, Original
from t2i.core.interfaces.visits import Visit
from t2i.core.registry.choice import Choice
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset
from t2i.core.settings import DataConfig

GROUP = 32
"""Number of examples that a worker reads at once."""

Progress = Callable[[str, int, int], None]
"""Called with the split, the number of examples read, and the number of all."""

Spread = tuple[float, float, float]
"""The smallest value, the median and the largest value."""


@dataclass(frozen=True)
class CheckedExample:
    """An example that could be read.

    Args:
        key: Its key.
        captions: Its captions.
        original: Its image file; made from the image where the data set has no files.
    """

    key: str
    captions: tuple[str, ...]
    original: Original


@dataclass
class SplitReport:
    """The content of one split.

    Args:
        split: Name of the split.
        examples: Number of examples.
        unfit: Whether too many examples are broken for training.
        allowed: Largest fraction of broken examples (`max_broken`).
        width: Widths of the images, in pixels. None if no example could be read.
        height: Heights of the images, in pixels. None if no example could be read.
        cut: Share of each image that is cut off, 0 to 1. None if no example could be read.
        modes: Number of images by Pillow's mode, such as "RGB".
        captions: Statistics of the captions.
        duplicates: Groups of keys of examples whose files are equal, byte by byte.
        broken: The examples that cannot be read.
        error: Why the split cannot be read at all; "" if it can.
        contents: What was found in the folder, and what was left out.
        keys: For each hash of a file, the key of one example.
    """

    split: str
    examples: int = 0
    unfit: bool = False
    allowed: float = 0.0
    width: Spread | None = None
    height: Spread | None = None
    cut: Spread | None = None
    modes: dict[str, int] = field(default_factory=dict)
    captions: dict[str, Any] = field(default_factory=dict)
    duplicates: list[list[str]] = field(default_factory=list)
    broken: list[BrokenExample] = field(default_factory=list)
    error: str = ""
    contents: Contents = field(default_factory=Contents)
    keys: dict[bytes, str] = field(default_factory=dict)

    def problem(self) -> str:
        """Say why the split is not fit for training.

        Returns:
            The reason; "" if it is fit.
        """
        if self.error:
            return f"split '{self.split}': {self.error}"
        if self.unfit:
            return (
                f"split '{self.split}': {len(self.broken)} of {self.examples} examples are broken, "
                f"more than max_broken = {self.allowed:g} allows"
            )
        return ""

    def document(self) -> dict[str, Any]:
        """Convert the report to a JSON document.

        Returns:
            All fields but `split`, `unfit`, `allowed` and `keys`, by name.
        """
        return {
            "examples": self.examples, "width": self.width, "height": self.height,
            "cut": self.cut, "found": list(self.contents.found),
            "passed_over": dict(self.contents.passed_over),
            "modes": self.modes, "captions": self.captions, "duplicates": self.duplicates,
            "broken": [{"file": error.where, "reason": error.reason} for error in self.broken],
            "error": self.error or None,
        }  # fmt: skip


@dataclass
class DataReport:
    """The content of a data set.

    Args:
        name: Name of the data set.
        splits: The reports of all splits.
        shared: Pairs of splits that have images in common: the two splits, and for each common
            image its key in the one and in the other.
    """

    name: str
    splits: list[SplitReport]
    shared: list[tuple[str, str, list[tuple[str, str]]]]

    def problems(self) -> list[str]:
        """List why splits are not fit for training.

        Returns:
            One line for each split that has a problem.
        """
        return [problem for split in self.splits if (problem := split.problem())]

    def document(self) -> dict[str, Any]:
        """Convert the report to a JSON document.

        Returns:
            The name, the splits by name, the shared images and the problems.
        """
        shared = [{"splits": [a, b], "pictures": images} for a, b, images in self.shared]
        splits = {split.split: split.document() for split in self.splits}
        return {"name": self.name, "splits": splits, "shared": shared, "problems": self.problems()}


def check_dataset(
    choice: Choice[DataConfig], *, workers: int = 0, progress: Progress | None = None
) -> DataReport:
    """Read every example of every split, as training would.

    Args:
        choice: The data set and its settings.
        workers: Number of processes that read; 0 to read in this one.
        progress: Called after each group of examples. None to report nothing.

    Returns:
        The report. A split that cannot be read at all has an `error`.
    """
    splits = [
        _split(choice, split, workers, progress)
        for split in registry().datasets[choice.name].splits
    ]
    pairs = (
        (a, b, [(a.keys[d], b.keys[d]) for d in a.keys.keys() & b.keys.keys()])
        for a, b in combinations(splits, 2)
    )
    return DataReport(
        choice.name, splits, [(a.split, b.split, sorted(keys)) for a, b, keys in pairs if keys]
    )


def _split(
    choice: Choice[DataConfig], split: str, workers: int, progress: Progress | None
) -> SplitReport:
    """Read one split. Errors of the user's making become the report's `error`."""
    try:
        dataset = open_dataset(choice, split)
        return _report(
            split,
            dataset,
            _read(dataset, workers, lambda n: progress and progress(split, n, len(dataset))),
        )
    except UserError as error:
        return SplitReport(split, error=str(error))


def _read(
    dataset: Dataset, workers: int, progress: Callable[[int], Any]
) -> Iterator[CheckedExample | BrokenExample]:
    """Yield every example, in order, calling `progress` with the number of those read."""
    indexes = range(len(dataset))
    groups = [indexes[i : i + GROUP] for i in range(0, len(indexes), GROUP)]
    loader = Loader(
        _Reader(dataset), iter([Visit(0, index) for index in group] for group in groups), workers
    )
    try:
        for group in groups:
            yield from next(loader)
            progress(group[-1] + 1)
    finally:
        loader.close()


class _Reader(Readable[list[CheckedExample | BrokenExample]]):
    """A data set of groups of examples, each as a CheckedExample or BrokenExample."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __getitem__(self, batch: Sequence[Visit]) -> list[CheckedExample | BrokenExample]:
        return [self._seen(visit.index) for visit in batch]

    def _seen(self, index: int) -> CheckedExample | BrokenExample:
        try:
            example = self._dataset[index]
            file = self._dataset.original(index)
        except BrokenExample as error:
            return error
        if file is None:
            height, width = example.image.shape[:2]
            file = Original(
                width,
                height,
                "RGB",
                hashlib.blake2b(example.image.tobytes(), digest_size=16).digest(),
            )
        return CheckedExample(example.key, example.captions, file)


def _report(
    split: str, dataset: Dataset, found: Iterator[CheckedExample | BrokenExample]
) -> SplitReport:
    """Collect the report of one split from its examples."""
    report = SplitReport(split, len(dataset), allowed=dataset.max_broken)
    report.contents = dataset.contents()
    cuts: list[float] = []
    sizes: list[tuple[int, int]] = []
    modes: Counter[str] = Counter()
    same: dict[bytes, list[str]] = {}
    words = _Captions()
    for item in found:
        if isinstance(item, BrokenExample):
            report.broken.append(item)
            continue
        sizes.append((item.original.width, item.original.height))
        cuts.append(item.original.cut)
        modes[item.original.mode] += 1
        same.setdefault(item.original.digest, []).append(item.key)
        words.add(item.captions)
    report.unfit = too_many_broken(dataset, len(report.broken))
    if sizes:
        report.cut = _spread(cuts)
        report.width, report.height = (_spread(side) for side in zip(*sizes, strict=True))
        report.modes, report.captions = dict(modes.most_common()), words.document()
    report.duplicates = [keys for keys in same.values() if len(keys) > 1]
    report.keys = {digest: keys[0] for digest, keys in same.items()}
    return report


class _Captions:
    """Statistics of captions."""

    def __init__(self) -> None:
        self._per_example: list[int] = []
        self._lengths: list[int] = []
        self._vocabulary: set[str] = set()
        self._different: set[bytes] = set()

    def add(self, captions: Sequence[str]) -> None:
        self._per_example.append(len(captions))
        for caption in captions:
            words = re.findall(r"[\w']+", caption.lower())
            self._lengths.append(len(words))
            self._vocabulary.update(words)
            self._different.add(
                hashlib.blake2b(caption.encode(errors="replace"), digest_size=16).digest()
            )

    def document(self) -> dict[str, Any]:
        return {
            "count": len(self._lengths), "different": len(self._different),
            "per_example": _spread(self._per_example), "words": _spread(self._lengths),
            "vocabulary": len(self._vocabulary), "empty": self._lengths.count(0),
        }  # fmt: skip


def _spread(values: Sequence[float]) -> Spread:
    return float(min(values)), float(np.median(values)), float(max(values))
