"""A cache of resized images: raw bytes that are mapped into memory.

The cache is a folder of parts (`core/io/parts.py`):

FOLDER/part-00000.raw    consecutive images, uint8 (n, S, S, 3); a broken image is black
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
from t2i.core.io.files import read_json, write_bytes
from t2i.core.io.parts import PartFolder

PART = 2**26  # bytes in a part, at most (but at least one image)
EVERY = 10.0  # seconds between two lines of progress, at least
WHAT = "cache of images"
SUFFIX = ".raw"


class ImageSource(Protocol):
    """Images to be cached: what the cache needs of a data set.

    Attributes:
        image_size: Height and width of the images in pixels.
    """

    image_size: int

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """Read and resize an image.

        Args:
            index: Which image, from 0.

        Returns:
            The image, uint8 (image_size, image_size, 3).

        Raises:
            BrokenExample: The image cannot be read.
        """

    def fingerprint(self) -> str:
        """Identify the data.

        Returns:
            A short string that changes when the data does.
        """


class ImageCache:
    """The cached images of a data set, by index.

    Args:
        parts: The folder of parts. All of them must have been made.
        size: Height and width of the images in pixels.
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
        """Open the cache of some images. Make it first if it is missing, incomplete or damaged.

        Several processes may call this at once: one makes the cache, the others wait.

        Args:
            images: The images.
            say: Receives lines of progress.

        Returns:
            The complete cache.

        Raises:
            UserError: There is too little space, or the folder cannot be written.
        """
        told = json.dumps([images.fingerprint(), PIL.__version__])
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
                f"another folder, or set "
                "data.cache=false"
            ) from None
        return cls(parts, images.image_size)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_maps": {}}

    def __getitem__(self, index: int) -> np.ndarray:
        """Read an image from the cache.

        Args:
            index: Which image, from 0.

        Returns:
            A copy of the image, uint8 (size, size, 3).

        Raises:
            BrokenExample: The image could not be read when the cache was made.
        """
        if index in self._broken:
            raise BrokenExample(*self._broken[index])
        part, row = divmod(index, self._parts.step)
        if part not in self._maps:
            shape = (-1, self._size, self._size, 3)
            self._maps[part] = np.memmap(self._parts.file(part), np.uint8, "r").reshape(shape)
        return np.array(self._maps[part][row])


def per_part(size: int) -> int:
    """Return how many images a part of the cache holds.

    Args:
        size: Height and width of the images in pixels.

    Returns:
        The number of images in PART bytes, at least 1.
    """
    return max(1, PART // (3 * size * size))


def _fill(parts: PartFolder, images: ImageSource, say: Callable[[str], None]) -> None:
    """Make the missing parts, and seal the cache."""
    missing = parts.missing()
    _need_space(parts, missing, images.image_size)
    say(f"resizing {parts.count} images to {images.image_size} pixels, once, into {parts.folder}")
    said = time.monotonic()
    # Threads are enough: decoding and resizing release the interpreter's lock.
    with ThreadPoolExecutor(_processors()) as threads:
        for number in missing:
            _write_part(parts, number, images, threads)
            if time.monotonic() - said > EVERY:
                said = time.monotonic()
                say(f"resized {parts.items(number).stop} of {parts.count} images")
    parts.seal()


def _need_space(parts: PartFolder, missing: Sequence[int], size: int) -> None:
    """Raise a UserError if the disk has too little space for the missing parts."""
    needed = sum(len(parts.items(number)) for number in missing) * 3 * size**2
    free = shutil.disk_usage(parts.folder).free
    if needed > free:
        raise UserError(
            f"{WHAT} {parts.folder} takes {needed / 1e9:.1f} GB, only {free / 1e9:.1f} GB are "
            f"free: free some, set "
            "T2I_HOME to another folder, or set data.cache=false"
        )


def _write_part(
    parts: PartFolder, number: int, source: ImageSource, threads: ThreadPoolExecutor
) -> None:
    """Make one part, and note which of its images are broken."""
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
