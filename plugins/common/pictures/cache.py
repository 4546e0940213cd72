"""Pictures resized once: raw bytes that are mapped into memory.

FOLDER/part-00000.raw    uint8 (n, S, S, 3): consecutive pictures, black where one is broken
FOLDER/part-00000.json   which are broken, and why
FOLDER/manifest.json     sizes and SHA-256 of all that: without it the cache is not complete

A part is there whole or not at all: who is killed goes on with the parts that are missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import PIL

from t2i.core.errors import UserError
from t2i.core.fetch.paths import cache_dir
from t2i.core.fetch.transfer import locked
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.io.files import MANIFEST, read_json, seal, verify, write_bytes, write_json

PART = 2**26  # bytes
EVERY = 10.0  # seconds between two lines of progress
WHAT = "cache of pictures"


class Pictures(Protocol):
    """What is cached."""

    image_size: int

    def __len__(self) -> int: ...

    def picture(self, index: int) -> np.ndarray:
        """uint8 (image_size, image_size, 3). BrokenExample if it cannot be read."""

    def fingerprint(self) -> str: ...


class PictureCache:
    """The pictures of a data set by index, as they were when they were read."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size, self._per_part = folder, size, per_part(size)
        self._maps: dict[int, np.ndarray] = {}
        self._broken: dict[int, tuple[str, str]] = {}
        for path in folder.glob("part-*.json"):
            self._broken |= {int(i): (where, why) for i, (where, why) in read_json(path, WHAT)["broken"].items()}

    @classmethod
    def of(cls, pictures: Pictures, say: Callable[[str], None]) -> PictureCache:
        """The cache of these pictures, made now as far as it is missing. Several processes may ask at once: one makes
        it, the others wait. One that is damaged is made anew."""
        told = json.dumps([pictures.fingerprint(), PIL.__version__])
        folder = cache_dir() / "pictures" / hashlib.sha256(told.encode()).hexdigest()[:24]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(folder, say):
                if (folder / MANIFEST).exists():
                    _discard_if_damaged(folder, say)
                if not (folder / MANIFEST).exists():
                    _fill(folder, pictures, say)
        except OSError as error:
            raise UserError(
                f"{WHAT} {folder}: {error.strerror or error}; free some space, set T2I_HOME to another folder, or set "
                "data.cache=false"
            ) from None
        return cls(folder, pictures.image_size)

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_maps": {}}

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 (size, size, 3). BrokenExample if the file could not be read."""
        if index in self._broken:
            raise BrokenExample(*self._broken[index])
        part, row = divmod(index, self._per_part)
        if part not in self._maps:
            shape = (-1, self._size, self._size, 3)
            self._maps[part] = np.memmap(_part(self._folder, part), np.uint8, "r").reshape(shape)
        return np.array(self._maps[part][row])


def per_part(size: int) -> int:
    """Pictures in a part."""
    return max(1, PART // (3 * size * size))


def _part(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.raw"


def _discard_if_damaged(folder: Path, say: Callable[[str], None]) -> None:
    try:
        verify(folder, WHAT)
    except UserError as error:
        say(f"warning: {error}: making it anew")
        shutil.rmtree(folder)
        folder.mkdir()


def _fill(folder: Path, pictures: Pictures, say: Callable[[str], None]) -> None:
    """Makes the parts that are missing, and seals the cache."""
    count, step = len(pictures), per_part(pictures.image_size)
    missing = [n for n in range(-(-count // step)) if not _part(folder, n).with_suffix(".json").exists()]
    needed = sum(min(step, count - n * step) for n in missing) * 3 * pictures.image_size**2
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{WHAT} {folder} takes {needed / 1e9:.1f} GB, only {free / 1e9:.1f} GB are free: free some, set T2I_HOME "
            "to another folder, or set data.cache=false"
        )
    say(f"resizing {count} pictures to {pictures.image_size} pixels, once, into {folder}")
    said = time.monotonic()
    with ThreadPoolExecutor(_processors()) as threads:  # decoding and resizing let other threads run
        for number in missing:
            _write_part(folder, number, pictures, range(number * step, min((number + 1) * step, count)), threads)
            if time.monotonic() - said > EVERY:
                said = time.monotonic()
                say(f"resized {min((number + 1) * step, count)} of {count} pictures")
    for litter in folder.glob(".*.tmp"):
        litter.unlink()
    seal(folder)


def _write_part(folder: Path, number: int, pictures: Pictures, indexes: range, threads: ThreadPoolExecutor) -> None:
    images = np.zeros((len(indexes), pictures.image_size, pictures.image_size, 3), np.uint8)
    broken: dict[str, tuple[str, str]] = {}

    def read(index: int) -> None:
        try:
            images[index - indexes.start] = pictures.picture(index)
        except BrokenExample as error:
            broken[str(index)] = (error.where, error.reason)

    for _ in threads.map(read, indexes):
        pass
    path = _part(folder, number)
    write_bytes(path, images.data)
    write_json(path.with_suffix(".json"), {"broken": broken})  # last: its presence says "complete"


def _processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
