"""The base class of data sets.

This module needs NumPy only, not torch.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from t2i.core.errors import T2IError


@dataclass(frozen=True)
class Example:
    """One captioned image.

    Args:
        image: The image, uint8 (H, W, 3), sRGB.
        captions: Its captions, at least one.
        key: Name of the example. It is unique within the data set and never changes.
        extras: Further data, such as a class id or a precomputed vector. Every example has the same
            keys.
    """

    image: np.ndarray
    captions: tuple[str, ...]
    key: str
    extras: Mapping[str, Any] = field(default_factory=dict)


class BrokenExample(T2IError):
    """An example whose file cannot be read, or has no image or no caption.

    `Dataset.__getitem__` raises it. Readers then count it and take another example instead
    (`sound`).

    Args:
        where: The file.
        reason: What is wrong with it, in words.
        away: Whether the system cannot reach the file, so that the fault may pass.
    """

    def __init__(self, where: str, reason: str, away: bool = False) -> None:
        # All are passed on, so that the exception can be pickled by a worker process.
        super().__init__(where, reason, away)
        self.where, self.reason, self.away = where, reason, away

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass(frozen=True)
class Original:
    """The file that an example is made of.

    Args:
        width: Width of the image in the file, pixels.
        height: Height of the image in the file, pixels.
        mode: Pillow's mode of the image, such as "RGB".
        digest: Hash of the file's bytes.
        cut: Share of the image that is cut off to make it square, from 0 to below 1.
    """

    width: int
    height: int
    mode: str
    digest: bytes
    cut: float = 0.0


@dataclass(frozen=True)
class Contents:
    """What a data set found in its folder, and what it left out.

    Args:
        found: What was found and how it is read, one fact a line, such as "captions: column
            'prompt' of metadata.csv".
        passed_over: What was left out: the number of files or rows by reason, such as "not an
            image file (.psd)".
    """

    found: tuple[str, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """When the files of a data set were written, as short strings that differ if that differs.

    Content can change without a change of names and sizes, which a fingerprint covers. To read it
    all would cost as much as an epoch; to look at each file costs microseconds.

    Args:
        times: Of the times of last modification, which copies may keep.
        changes: Of those and the times of the last change of a file or its permissions, which
            nobody can set. A copy has others.
    """

    times: str
    changes: str

    @classmethod
    def of(cls, files: Iterable[Path]) -> Written:
        """Look at files.

        Args:
            files: The files, always in the same order. One that is missing counts as such.

        Returns:
            When they were written.
        """
        times, changes = hashlib.sha256(), hashlib.sha256()
        for file in files:
            try:
                state = os.stat(file)
            except OSError:
                told, also = "-", ""
            else:
                told, also = f"{state.st_mtime_ns} ", f"{state.st_ctime_ns} "
            times.update(told.encode())
            changes.update((told + also).encode())
        return cls(times.hexdigest()[:24], changes.hexdigest()[:24])


@dataclass(frozen=True)
class Asked:
    """Images that a model shall sample before it is trained on them.

    Args:
        caption: Their caption.
        count: Number of images that are missing.
        folder: Where they are written. It need not exist.
    """

    caption: str
    count: int
    folder: Path


class Dataset(ABC):
    """A data set of captioned images. It must be picklable, because loader workers get a copy.

    Attributes:
        image_size: Height and width of the images, pixels.
        endless: Whether any index >= 0 is valid. `len` is then the nominal length of an epoch.
        max_broken: Largest share of broken examples, from 0 to below 1. It is set from
            `DataConfig.max_broken` when the data set is opened.
        few_broken: Number of broken examples that are allowed whatever their share is, unless they
            are more than half of the data set. It is set from `DataConfig.few_broken`.
    """

    image_size: int
    endless: bool = False
    max_broken: float = 0.01
    few_broken: int = 5

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Example:
        """Read one example. Raises BrokenExample if its file cannot be used."""
        ...

    @abstractmethod
    def fingerprint(self) -> str:
        """Compute a short string that changes when the data changes.

        It is recorded with every run and every score.

        Returns:
            The fingerprint.
        """

    def written(self) -> Written | None:
        """Tell when the files of the data set were written.

        A run does not go on with files that were written since it began, and caches are made again,
        even if `fingerprint` is the same.

        Returns:
            The times. None (the default): there are no files, or the fingerprint covers them.
        """
        return None

    def version(self) -> str:
        """Return a short string by which caches of the examples are named.

        Returns:
            The fingerprint, and when the files were written.
        """
        written = self.written()
        return f"{self.fingerprint()}-{written.changes}" if written else self.fingerprint()

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of one example. Override it if they can be read without the image.

        Args:
            index: Index of the example.

        Returns:
            Its captions, at least one.

        Raises:
            BrokenExample: The file of the example cannot be used.
        """
        return self[index].captions

    def order(self, seed: int, epoch: int, start: int = 0) -> Iterable[int]:
        """Return the order in which training visits the examples of one epoch.

        The order depends on (seed, epoch) alone and contains each index once. The default is a
        random permutation. Override it if examples that are read one after the other should be
        close to each other in storage.

        Args:
            seed: Seed of the run.
            epoch: Number of the epoch, from 0.
            start: Position to begin at; the indexes before it are left out.

        Returns:
            The indexes from position `start` on.
        """
        from t2i.core.interfaces.noise import random_stream  # it imports torch

        indexes: list[int] = (
            random_stream(seed, "order", epoch).permutation(len(self))[start:].tolist()
        )
        return indexes

    def variant(self, index: int, number: int) -> Example | None:
        """Return another real image for the captions of an example.

        Benchmarks compare the samples of one caption with several real images of it.

        Args:
            index: Index of the example.
            number: Number of the variant, from 1. The same number gives the same image each time.

        Returns:
            The variant. None (the default) if a caption has only one image.
        """
        return None

    def vocabulary(self) -> Iterable[str]:
        """Return texts from which a text encoder can build its vocabulary.

        Returns:
            Texts. By default the captions of all examples that are not broken.
        """
        for index in range(len(self)):
            try:
                yield from self.captions(index)
            except BrokenExample:
                continue

    def original(self, index: int) -> Original | None:
        """Describe the file of an example, for `t2i datasets check`.

        Args:
            index: Index of the example.

        Returns:
            The original. None (the default) if examples are not made of files.

        Raises:
            BrokenExample: The file cannot be used.
        """
        return None

    def contents(self) -> Contents:
        """Describe what was found in the data set's folder, and count what was left out.

        `t2i datasets check` shows it. Training and scoring print what was left out, and training
        records it in RUN/data.json.

        Returns:
            The contents of this split. By default nothing is said.
        """
        return Contents()

    def asked(self) -> Asked | None:
        """Return which images the model must sample before training, of a class for example.

        They are sampled once the model has the weights that it starts from. The length and the
        captions are known before.

        Returns:
            The images that are missing. None (the default): none is.
        """
        return None

    def prepare(self, say: Callable[[str], None]) -> None:  # noqa: B027
        """Prepare for reading the whole data set, for example by making a cache of resized images.

        Called in every process before training or scoring. By default nothing is done.

        Args:
            say: Function that prints a line of progress.
        """
