"""Data sets of image files: a list of captioned images, and the folder or archive they are in."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import (
    BrokenExample,
    Contents,
    Dataset,
    Example,
    Original,
    Written,
)
from t2i.core.io.images import decode, original
from t2i.plugins.common.images.cache import ImageCache
from t2i.plugins.common.images.config import ImagesConfig
from t2i.plugins.common.images.walk import walk

FORMAT = 1  # to be raised whenever the same files give other examples
LARGEST = 2**28
"""Largest size of an image in an archive, in bytes. A small archive can claim to hold any number.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A captioned image of a data set.

    Args:
        key: Unique within the data set, stable.
        file: Path of the image in its source, with "/".
        captions: Its captions; without any, the example is broken.
        box: Left, top, right and bottom, in pixels, of the part that is used (see `decode`). None:
            all of it.
        extras: What else is known of the image, such as its class; JSON values, as they are hashed.
    """

    key: str
    file: str
    captions: tuple[str, ...]
    box: tuple[int, int, int, int] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


class Source(ABC):
    """A place where files are: a folder or an archive."""

    @abstractmethod
    def open(self, file: str) -> Path | bytes:
        """Return a file in a form that `decode` accepts.

        Args:
            file: Path of the file in the source, with "/".

        Returns:
            The file's path or its content. A path is not checked here, but by `decode`.

        Raises:
            BrokenExample: An archive lacks the file, or the file cannot be unpacked or is too
                large.
        """

    @abstractmethod
    def holder(self, file: str) -> Path:
        """Return the file on the disk that holds a file: itself, or an archive.

        Args:
            file: Path of the file in the source, with "/".

        Returns:
            Its path.
        """

    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """Return the size of every file.

        Returns:
            Path in the source -> size in bytes.
        """

    @abstractmethod
    def where(self, file: str) -> str:
        """Return the name of a file in errors.

        Args:
            file: Path of the file in the source.

        Returns:
            The name.
        """


class Folder(Source):
    """Files in a folder and its subfolders.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, file: str) -> Path:
        return self._path / file

    def holder(self, file: str) -> Path:
        return self._path / file

    def sizes(self) -> Mapping[str, int]:
        return walk(self._path).sizes

    def where(self, file: str) -> str:
        return str(self._path / file)


class Archive(Source):
    """Files in a zip file, which is not unpacked. Every process opens the archive for itself.

    Args:
        path: The zip file.
        prefix: Start of the names of those files in the archive that belong to the source; it is no
            part of their paths.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        self._path, self._prefix = path, prefix
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    @property
    def _archive(self) -> zipfile.ZipFile:
        process = os.getpid()
        # Processes that share an open file share its position too.
        if self._opened is None or self._opened[0] != process:
            self._opened = process, open_archive(self._path)
        return self._opened[1]

    def open(self, file: str) -> bytes:
        try:
            entry = self._archive.getinfo(self._prefix + file)
            if entry.file_size > LARGEST:
                raise BrokenExample(
                    self.where(file), f"{entry.file_size} bytes, more than {LARGEST}"
                )
            if entry.flag_bits & 1:
                raise BrokenExample(self.where(file), "encrypted; unpack the archive into a folder")
            return self._archive.read(entry)
        except BrokenExample:
            raise
        except KeyError:
            raise BrokenExample(self.where(file), "not in the archive") from None
        except Exception as error:  # a damaged archive: zlib and struct raise errors of their own
            raise BrokenExample(
                self.where(file), f"cannot be unpacked ({type(error).__name__})",
                away=not os.path.exists(self._path),
            ) from None  # fmt: skip

    def holder(self, file: str) -> Path:
        return self._path

    def sizes(self) -> Mapping[str, int]:
        skipped = len(self._prefix)
        return {
            entry.filename[skipped:]: entry.file_size
            for entry in self._archive.infolist()
            if entry.filename.startswith(self._prefix) and not entry.is_dir()
        }

    def where(self, file: str) -> str:
        return f"{self._path}:{self._prefix}{file}"


def open_archive(path: Path) -> zipfile.ZipFile:
    """Open a zip file.

    Args:
        path: The file.

    Returns:
        The archive.

    Raises:
        UserError: The file cannot be read, or is not a sound zip file.
    """
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: no sound zip file ({error}); get it again") from None


def safe_name(name: str, where: str) -> str:
    """Check a file name from annotations.

    Args:
        name: The name; "\\" is read as "/".
        where: Name of the annotations in errors.

    Returns:
        The name as a path within its folder, with "/".

    Raises:
        UserError: The path is empty, is absolute, leads out of the folder, or has a drive or a NUL.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or ":" in path.parts[0]
        or "\0" in name
    ):
        raise UserError(f"{where}: '{name[:80]}' is no name of a file inside the folder")
    return str(path)


def plain(caption: str) -> str:
    """Put a caption on one line.

    Letters that an older program could not decode (U+FFFD in the file) become spaces, as in the
    StackGAN line's code.

    Args:
        caption: The caption as it was read.

    Returns:
        The caption, with single spaces.
    """
    return " ".join(caption.replace("\ufffd", " ").split())


def captions_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the captions among some texts.

    Args:
        texts: Texts that may be empty.

    Returns:
        The texts that are not empty, each on one line.
    """
    return tuple(filter(None, map(plain, texts)))


def data_folder(config: ImagesConfig, name: str) -> Path:
    """Return the folder that the settings name.

    Args:
        config: Settings of the data set.
        name: Name of the data set in errors.

    Returns:
        The folder.

    Raises:
        UserError: The settings name none, or it does not exist.
    """
    if config.dir is None:
        raise UserError(f"data set '{name}' lies in a folder: say which with --data-dir")
    path = Path(config.dir).expanduser()
    if path.is_file():
        raise UserError(f"data set '{name}': {path} is a file; name the folder that it lies in")
    if not path.is_dir():
        raise UserError(f"data set '{name}': {path} is no folder; say which with --data-dir")
    return path


class ImageFiles(Dataset):
    """A data set of captioned image files.

    Args:
        config: Settings of the data set.
        name: Name of the data set in errors and in the fingerprint.
        source: Where the files are.
        entries: The images, in the order of their indexes.
        contents: What was found where they are, and what was left out. None: nothing is said.

    Raises:
        UserError: There are no images.
    """

    def __init__(
        self,
        config: ImagesConfig,
        name: str,
        source: Source,
        entries: Sequence[Entry],
        contents: Contents | None = None,
    ) -> None:
        if not entries:
            raise UserError(f"data set '{name}': there is no image in {source.where('')}")
        self.image_size = config.image_size
        self.max_broken, self.few_broken = config.max_broken, config.few_broken
        self._config, self._contents = config, contents or Contents()
        self._name, self._source, self._entries = name, source, entries
        self._cache: ImageCache | None = None
        self._times: np.ndarray | None = None  # when each file was written, in ns since 1970

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        entry = self._entries[index]
        captions = self.captions(index)
        image = self._cache[index] if self._cache else self.image(index)
        return Example(image, captions, entry.key, entry.extras)

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of an image, without reading the image.

        Args:
            index: Number of the image, from 0.

        Returns:
            The captions, at least one.

        Raises:
            BrokenExample: There are none.
        """
        entry = self._entries[index]
        if not entry.captions:
            raise BrokenExample(self._source.where(entry.file), "no caption")
        return entry.captions

    def image(self, index: int) -> np.ndarray:
        """Read an image from its file, without the cache.

        Args:
            index: Number of the image, from 0.

        Returns:
            uint8 (image_size, image_size, 3).

        Raises:
            BrokenExample: The file cannot be read, or was written since `written` was called.
        """
        entry = self._entries[index]
        self._refuse_if_written(index)
        return decode(
            self._source.open(entry.file), self.image_size, box=entry.box, fit=self._config.fit,
            max_pixels=self._config.max_pixels, where=self._source.where(entry.file),
        )  # fmt: skip

    def original(self, index: int) -> Original:
        entry = self._entries[index]
        return original(
            self._source.open(entry.file), self._source.where(entry.file), box=entry.box,
            fit=self._config.fit, max_pixels=self._config.max_pixels,
        )  # fmt: skip

    def contents(self) -> Contents:
        return self._contents

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        """A hash of captions, file names, file sizes and image size; not of where the files are.

        Settings that change the images are in it where they are not the default.
        """
        sizes = self._source.sizes()
        own = self._config.model_dump(include={"fit", "max_pixels"}, exclude_defaults=True)
        head = [FORMAT, self._name, self.image_size, *([own] if own else [])]
        digest = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
        for entry in self._entries:
            told = [
                entry.key,
                entry.file,
                sizes.get(entry.file),
                entry.captions,
                entry.box,
                dict(entry.extras),
            ]
            digest.update(json.dumps(told).encode())
        return digest.hexdigest()

    def written(self) -> Written:
        self._times = np.array([self._time(entry) for entry in self._entries], np.int64)
        holders = (self._source.holder(entry.file) for entry in self._entries)
        return Written.of(dict.fromkeys(holders))

    def _time(self, entry: Entry) -> int:
        try:
            return os.stat(self._source.holder(entry.file)).st_mtime_ns
        except OSError:  # reading it tells why
            return 0

    def _refuse_if_written(self, index: int) -> None:
        """Raise BrokenExample if a file was written since the data set was looked at."""
        if self._times is None:
            return
        entry = self._entries[index]
        if (now := self._time(entry)) and now != self._times[index]:
            raise BrokenExample(self._source.where(entry.file), "written to while it is in use")

    def prepare(self, say: Callable[[str], None]) -> None:
        """Make the cache, if the settings say so and it does not exist."""
        if self._config.cache and self._cache is None:
            self._cache = ImageCache.of(self, say)
