"""Data sets of image files.

An entry is a captioned image, a source is the place of the files, and the data set joins the two.
"""

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
from t2i.core.interfaces.dataset import BrokenExample, Dataset, Example, Original
from t2i.core.io.images import decode, original
from t2i.plugins.common.images.cache import ImageCache
from t2i.plugins.common.images.config import ImagesConfig

FORMAT = 1  # increase it whenever the same files give other examples
LARGEST = 2**28
"""Largest size in bytes of one image in an archive, as a small archive can unpack to any size."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A captioned image.

    Args:
        key: Name of the image, unique in the data set.
        file: Path in the source, with "/".
        captions: The captions. (): the example counts as broken.
        box: Left, top, right and bottom, in pixels, of the part that is used (see `decode`). None:
            all.
        extras: Further values of the example by name, such as "class". They must be JSON values.
    """

    key: str
    file: str
    captions: tuple[str, ...]
    box: tuple[int, int, int, int] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


class Source(ABC):
    """A place that holds the files of a data set."""

    @abstractmethod
    def open(self, file: str) -> Path | bytes:
        """Open a file.

        Args:
            file: Path in the source, with "/".

        Returns:
            The path of the file or its content, as `decode` takes it. A path need not exist.

        Raises:
            BrokenExample: The file cannot be read from an archive.
        """

    @abstractmethod
    def sizes(self) -> Mapping[str, int]:
        """List all files.

        Returns:
            Size in bytes by path in the source.
        """

    @abstractmethod
    def where(self, file: str) -> str:
        """Name a file for errors.

        Args:
            file: Path in the source. "": the source itself.

        Returns:
            The full name of the file.
        """


class Folder(Source):
    """The files in a folder and its subfolders.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, file: str) -> Path:
        return self._path / file

    def sizes(self) -> Mapping[str, int]:
        found: dict[str, int] = {}
        pending = [""]
        while pending:
            prefix = pending.pop()
            for entry in _entries(self._path / prefix):
                if entry.is_dir():
                    pending.append(f"{prefix}{entry.name}/")
                elif entry.is_file():
                    found[prefix + entry.name] = entry.stat().st_size
        return found

    def where(self, file: str) -> str:
        return str(self._path / file)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return list(entries)


class Archive(Source):
    """The files in a zip archive, which is not unpacked on disk.

    Each process opens the archive itself.

    Args:
        path: The archive.
        prefix: Beginning of the names of the files that belong to the source. Paths are without it.
    """

    def __init__(self, path: Path, prefix: str = "") -> None:
        self._path, self._prefix = path, prefix
        self._opened: tuple[int, zipfile.ZipFile] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    @property
    def _archive(self) -> zipfile.ZipFile:
        process = os.getpid()
        # A file that processes share has one position for all of them.
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
            return self._archive.read(entry)
        except BrokenExample:
            raise
        except KeyError:
            raise BrokenExample(self.where(file), "not in the archive") from None
        except Exception as error:  # a damaged archive: zlib and struct raise errors of their own
            raise BrokenExample(
                self.where(file), f"cannot be unpacked ({type(error).__name__})"
            ) from None

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
    """Open a zip archive for reading.

    Args:
        path: The archive.

    Returns:
        The open archive.

    Raises:
        UserError: The file cannot be read or is no zip archive.
    """
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path}: no sound zip file ({error}); get it again") from None


def safe_name(name: str, where: str) -> str:
    """Check a file name from annotations: it must stay inside its folder.

    Args:
        name: The name, with "/" or backslashes.
        where: The annotations, as errors name them.

    Returns:
        The name as a relative path, with "/".

    Raises:
        UserError: The name is empty, absolute, has a drive, "..", or a NUL character.
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

    Args:
        caption: The text.

    Returns:
        The text with single spaces. Characters that could not be decoded (U+FFFD) become spaces, as
        in StackGAN's code.
    """
    return " ".join(caption.replace("\ufffd", " ").split())


def captions_of(texts: Iterable[str]) -> tuple[str, ...]:
    """Put texts on one line each, and leave out empty ones.

    Args:
        texts: The texts.

    Returns:
        The captions.
    """
    return tuple(filter(None, map(plain, texts)))


def data_folder(config: ImagesConfig, name: str) -> Path:
    """Return the folder of a data set.

    Args:
        config: Settings of the data set.
        name: Registry name of the data set, for messages.

    Returns:
        The folder that the setting `dir` names.

    Raises:
        UserError: The setting is None, or there is no such folder.
    """
    if config.dir is None:
        raise UserError(f"data set '{name}' lies in a folder: say which with --data-dir")
    path = Path(config.dir).expanduser()
    if not path.is_dir():
        raise UserError(f"data set '{name}': {path} is no folder; say which with --data-dir")
    return path


def in_val(key: str, share: float) -> bool:
    """Return whether an image is kept for validation. A hash of its key decides.

    Args:
        key: Name of the image.
        share: Share of all images that are kept, 0 to 1.

    Returns:
        Whether the image is kept.
    """
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") < share * 2**64


class ImageFiles(Dataset):
    """A data set of captioned image files.

    Args:
        config: Settings of the data set.
        name: Registry name of the data set, for messages and the fingerprint.
        source: The place of the files.
        entries: The examples, in their order.

    Raises:
        UserError: There are no entries.
    """

    def __init__(
        self, config: ImagesConfig, name: str, source: Source, entries: Sequence[Entry]
    ) -> None:
        if not entries:
            raise UserError(f"data set '{name}': there is no image in {source.where('')}")
        self.image_size, self.max_broken = config.image_size, config.max_broken
        self._name, self._source, self._entries = name, source, entries
        self._wants_cache = config.cache
        self._cache: ImageCache | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> Example:
        entry = self._entries[index]
        captions = self.captions(index)
        image = self._cache[index] if self._cache else self.image(index)
        return Example(image, captions, entry.key, entry.extras)

    def captions(self, index: int) -> tuple[str, ...]:
        """Return the captions of one example, without reading its image.

        Args:
            index: Which example, from 0.

        Returns:
            The captions, at least one.

        Raises:
            BrokenExample: The example has no captions.
        """
        entry = self._entries[index]
        if not entry.captions:
            raise BrokenExample(self._source.where(entry.file), "no caption")
        return entry.captions

    def image(self, index: int) -> np.ndarray:
        """Read an image from its file, not from the cache.

        Args:
            index: Which example, from 0.

        Returns:
            The image, uint8 (image_size, image_size, 3).

        Raises:
            BrokenExample: The image cannot be read.
        """
        entry = self._entries[index]
        where = self._source.where(entry.file)
        return decode(self._source.open(entry.file), self.image_size, box=entry.box, where=where)

    def original(self, index: int) -> Original:
        file = self._entries[index].file
        return original(self._source.open(file), self._source.where(file))

    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        """Hash the entries, the sizes of their files and the images' size.

        The place of the files does not matter.
        """
        sizes = self._source.sizes()
        digest = hashlib.sha256(json.dumps([FORMAT, self._name, self.image_size]).encode())
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

    def prepare(self, say: Callable[[str], None]) -> None:
        """Open the cache, or make it, if the setting `cache` is on.

        Args:
            say: Receives lines of progress.
        """
        if self._wants_cache and self._cache is None:
            self._cache = ImageCache.of(self, say)
