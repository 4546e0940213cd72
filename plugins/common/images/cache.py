"""A cache on disk of resized images: raw bytes that are mapped into memory.

It is a folder of parts (`core/io/parts.py`):

FOLDER/part-00000.raw    uint8 (n, S, S, 3): consecutive images; a broken one is black
FOLDER/part-00000.json   which images are broken, and why
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import PIL

from t2i.core.errors import UserError
from t2i.core.fetch.paths import cache_dir
from t2i.core.fetch.transfer import locked
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.io.files import write_bytes
from t2i.core.io.json_files import read_json
from t2i.core.io.parts import PartFolder

PART = 2**26  # size of one part, in bytes
EVERY = 10.0  # seconds between two lines of progress
WHAT = "cache of images"
SUFFIX = ".raw"


class ImageSource(Protocol):
    """Images that can be cached: the methods of a data set that the cache needs.

    Attributes:
        image_size: Height and width of the images, in pixels.
    """

    image_size: int

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """Return an image, resized.

        Args:
            index: Number of the image, from 0.

        Returns:
            uint8 (image_size, image_size, 3).

        Raises:
            BrokenExample: The image cannot be read.
        """

    def version(self) -> str:
        """Return a short string that changes when the images do (`Dataset.version`).

        Returns:
            The string.
        """
        ...


class ImageCache:
    """The resized images of a data set by index, as they were when they were first read.

    Args:
        parts: The cache's folder, complete.
        size: Height and width of the images, in pixels.
    """

    def __init__(self, parts: PartFolder, size: int) -> None:
        self._parts, self._size = parts, size
        self._maps: dict[int, np.ndarray] = {}
        self._broken: dict[int, tuple[str, str]] = {}
        for path in parts.folder.glob("part-*.json"):
            self._broken |= {
                int(i): (where, why) for i, (where, why) in read_json(path, WHAT)["broken"].items()
            }

    @classmethod
    def of(cls, images: ImageSource, say: Callable[[str], None]) -> ImageCache:
        """Open the cache of these images, and make what is missing of it first.

        If several processes call this at once, one makes the cache and the others wait. A damaged
        cache is made again.

        Args:
            images: The images.
            say: Receives lines of progress.

        Returns:
            The cache, complete.

        Raises:
            UserError: There is not enough space, or the folder cannot be written.
        """
        told = json.dumps([images.version(), PIL.__version__])
        folder = cache_dir() / "pictures" / hashlib.sha256(told.encode()).hexdigest()[:24]
        parts = PartFolder(folder, len(images), per_part(images.image_size), SUFFIX)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder, say):
                parts.discard_if_damaged(WHAT, say)
                if not parts.is_sealed:
                    _fill(parts, images, say)
        except OSError as error:
            raise UserError(
                f"{WHAT} {folder}: {error.strerror or error}; free some space, set T2I_HOME to "
                "another folder, or set data.cache=false"
            ) from None
        return cls(parts, images.image_size)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_maps": {}}

    def __getitem__(self, index: int) -> np.ndarray:
        """Return image number `index`, uint8 (size, size, 3).

        Raises:
            BrokenExample: Its file could not be read.
        """
        if index in self._broken:
            raise BrokenExample(*self._broken[index])
        part, row = divmod(index, self._parts.step)
        if part not in self._maps:
            shape = (-1, self._size, self._size, 3)
            self._maps[part] = np.memmap(self._parts.file(part), np.uint8, "r").reshape(shape)
        return np.array(self._maps[part][row])


def per_part(size: int) -> int:
    """Return how many images one part holds.

    Args:
        size: Height and width of the images, in pixels.

    Returns:
        The number of images, at least 1.
    """
    return max(1, PART // (3 * size * size))


def _fill(parts: PartFolder, images: ImageSource, say: Callable[[str], None]) -> None:
    """Make the missing parts, and seal the cache."""
    missing = parts.missing()
    _need_space(parts, missing, images.image_size)
    say(f"resizing {parts.count} images to {images.image_size} pixels, once, into {parts.folder}")
    said = time.monotonic()
    # Decoding and resizing release the interpreter's lock.
    with ThreadPoolExecutor(_processors()) as threads:
        for number in missing:
            _write_part(parts, number, images, threads)
            if time.monotonic() - said > EVERY:
                said = time.monotonic()
                say(f"resized {parts.items(number).stop} of {parts.count} images")
    parts.seal()


def _need_space(parts: PartFolder, missing: Sequence[int], size: int) -> None:
    """Raise UserError unless the disk has room for the missing parts."""
    needed = sum(len(parts.items(number)) for number in missing) * 3 * size**2
    free = shutil.disk_usage(parts.folder).free
    if needed > free:
        raise UserError(
            f"{WHAT} {parts.folder} takes {needed / 1e9:.1f} GB, only {free / 1e9:.1f} GB are "
            "free: free some, set T2I_HOME to another folder, or set data.cache=false"
        )


def _write_part(
    parts: PartFolder, number: int, source: ImageSource, threads: ThreadPoolExecutor
) -> None:
    indexes, size = parts.items(number), source.image_size
    decoded = np.zeros((len(indexes), size, size, 3), np.uint8)
    broken: dict[str, tuple[str, str]] = {}

    def read(index: int) -> None:
        try:
            decoded[index - indexes.start] = source.image(index)
        except BrokenExample as error:
            broken[str(index)] = (error.where, error.reason)

    for _ in threads.map(read, indexes):
        pass
    write_bytes(parts.file(number), decoded.data)
    parts.complete(number, {"broken": broken})


def _processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
