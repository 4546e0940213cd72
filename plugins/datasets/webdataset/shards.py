"""The shards of a data set: their bytes, and the indexes of their examples."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import json
import lzma
import os
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import numpy as np

from t2i.core.errors import UserError
from t2i.core.fetch.paths import cache_dir
from t2i.core.fetch.transfer import locked
from t2i.core.fetch.web import is_web_page
from t2i.core.io.files import check_regular, temporary_beside, write_bytes
from t2i.plugins.datasets.webdataset.grouping import KNOWN, Choice, Index, index_of, row_type
from t2i.plugins.datasets.webdataset.recognise import TAR
from t2i.plugins.datasets.webdataset.remote import download
from t2i.plugins.datasets.webdataset.tar import CUT, DAMAGED, ENDLESS, NoTar, members

STORED = 2  # to be raised whenever the same tar gives another index

PACKED: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open,
}  # fmt: skip
"""How a compressed file is opened, by its first bytes."""

NO_END = (CUT, DAMAGED, ENDLESS)
"""What is wrong with the last member of a tar that was cut off."""

ZSTANDARD = b"\x28\xb5\x2f\xfd"
CHUNK = 1 << 20  # bytes unpacked at a time


class Shard(ABC):
    """A tar file.

    Attributes:
        room: Size in bytes of the cache of downloaded and unpacked shards.
        choice: The endings that the settings name.
    """

    room: float
    choice: Choice

    @property
    @abstractmethod
    def name(self) -> str:
        """Name for error messages: the path or the URL."""

    @property
    def stem(self) -> str:
        """First part of the keys of its examples, which distinguishes the shards."""
        return TAR.sub("", PurePosixPath(urlsplit(self.name).path).name)

    @abstractmethod
    def path(self) -> Path:
        """Return the tar, which is downloaded or unpacked first if need be.

        Returns:
            Its path.

        Raises:
            UserError: It cannot be downloaded or unpacked.
        """

    @abstractmethod
    def index(self) -> Index:
        """Return the index of its examples, which is made from the tar once and then stored.

        Returns:
            The index.

        Raises:
            UserError: It is not a tar, or cannot be downloaded.
        """

    @abstractmethod
    def identity(self) -> list[Any]:
        """Return what distinguishes it from another version of itself.

        Returns:
            Values that can be written as JSON.
        """


@dataclass(frozen=True)
class LocalShard(Shard):
    """A tar file on this machine. Its index is stored in the cache folder.

    Args:
        file: Path of the file.
        room: As for `Shard`.
        choice: As for `Shard`.
        label: What its keys begin with. "": the name of the file.
    """

    file: Path
    room: float = 0
    choice: Choice = KNOWN
    label: str = ""

    @property
    def name(self) -> str:
        return str(self.file)

    @property
    def stem(self) -> str:
        return self.label or super().stem

    def path(self) -> Path:
        if not _packed(self.file):
            return self.file
        kept = _cache() / f"{self._version}.tar"
        kept.parent.mkdir(parents=True, exist_ok=True)
        with locked(kept):
            if not kept.exists():
                _unpack(self.file, kept, self.room, self.name)
        make_room(self.room, kept)
        _touch(kept)
        return kept

    def identity(self) -> list[Any]:
        return [self.file.name, self.file.stat().st_size]

    @property
    def _version(self) -> str:
        state = self.file.stat()
        told = f"{self.file.absolute()} {state.st_size} {state.st_mtime_ns}"
        return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()

    def index(self) -> Index:
        folder = cache_dir() / "webdataset" / "indexes"
        try:
            return _indexed(self, folder / f"{self._version}{_suffix(self.choice)}")
        except NoTar:
            raise UserError(
                f"data set 'webdataset': {self.name} is no tar file; remove it, or correct "
                "data.shards"
            ) from None


@dataclass(frozen=True)
class RemoteShard(Shard):
    """A tar file behind a URL.

    It is downloaded whole into a cache of limited size when it is first needed.

    Args:
        url: Its URL.
        room: As for `Shard`.
        choice: As for `Shard`.
    """

    url: str
    room: float
    choice: Choice = KNOWN

    @property
    def name(self) -> str:
        return self.url

    @property
    def _kept(self) -> Path:
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:32]
        return _cache() / f"{digest}.tar"

    def identity(self) -> list[Any]:
        return [self.url]

    def path(self) -> Path:
        kept = self._kept
        if not kept.exists():
            arrived = kept.with_suffix(".arrived")
            kept.parent.mkdir(parents=True, exist_ok=True)
            with locked(kept):
                if not kept.exists():
                    self._bring(arrived, kept)
            make_room(self.room, kept)
        _touch(kept)
        return kept

    def index(self) -> Index:
        for _ in range(3):  # another process may have removed it meanwhile, to make room
            kept = self.path()
            try:
                return _indexed(self, kept.with_name(kept.stem + _suffix(self.choice)))
            except FileNotFoundError:
                continue
            except NoTar:  # an older t2i kept whatever came
                kept.unlink(missing_ok=True)
        raise UserError(
            f"{self.url}: the cache {_cache()} is too small for what is read at once; raise "
            "data.cache_gb"
        )

    def _bring(self, arrived: Path, kept: Path) -> None:
        """Download the tar to `arrived`, and move it to `kept` if it is one."""
        download(self.url, arrived, self.room, lambda path: _is_whole(path, self.room))
        try:
            if _packed(arrived):
                _unpack(arrived, kept, self.room, self.name)
            else:
                refuse_other_files(arrived)
                os.replace(arrived, kept)
        except NoTar:
            what = (
                "a web page, perhaps the login page of this network"
                if _is_page(arrived)
                else "no tar file"
            )
            raise UserError(
                f"data set 'webdataset': {self.url}: what came is {what}; it was not kept: check "
                "the network and data.shards, then try again"
            ) from None
        finally:
            arrived.unlink(missing_ok=True)


def _cache() -> Path:
    return cache_dir() / "webdataset" / "shards"


def _suffix(choice: Choice) -> str:
    """Return the end of an index's name, which differs by the version and the endings."""
    told = hashlib.sha256(json.dumps([STORED, choice]).encode()).hexdigest()
    return f".{told[:12]}.npy"


def _touch(path: Path) -> None:
    """Set the access time of a shard to now, and keep the time of its last change."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def make_room(room: float, keep: Path) -> None:
    """Remove the least recently used shards until the cache fits.

    Args:
        room: Size of the cache in bytes.
        keep: A shard in the cache that is not removed.
    """
    with locked(keep.parent / "room"):
        shards = [
            (path.stat().st_atime_ns, path.stat().st_size, path)
            for path in keep.parent.glob("*.tar")
        ]
        total = sum(size for _, size, _ in shards)
        for _, size, path in sorted(shards):
            if total <= room:
                return
            if path != keep:
                for gone in (path, *path.parent.glob(f"{path.stem}*.npy")):
                    gone.unlink(missing_ok=True)
                total -= size


def refuse_other_files(path: Path) -> None:
    """Check that a file begins as a tar does.

    Args:
        path: The file.

    Raises:
        NoTar: It does not.
    """
    with open(path, "rb") as file:
        next(members(file), None)


def _is_page(path: Path) -> bool:
    """Whether a file that came for a shard is a web page."""
    with open(path, "rb") as file:
        return is_web_page(file.read(1024), "shard")


def _is_whole(path: Path, room: float) -> bool:
    """Whether the end of a shard, compressed or not, is there; also of what is no shard at all.

    Nor is the end looked for of what, unpacked, is larger than `room` bytes.
    """
    if opener := _packed(path):
        try:
            with opener(path) as source:
                size = 0
                while size <= room and (content := source.read1(CHUNK)):
                    size += len(content)
        except (EOFError, zlib.error, lzma.LZMAError, OSError):
            return False
        return True
    try:
        with open(path, "rb") as file:
            return all(member.problem not in NO_END for member in members(file))
    except NoTar:
        return True


def _packed(path: Path) -> Callable[[Path], Any] | None:
    """Return how a compressed file is opened; None if it is not compressed."""
    check_regular(path, "data set 'webdataset'")
    try:
        with open(path, "rb") as file:
            begin = file.read(8)
    except OSError as error:
        raise UserError(f"data set 'webdataset': {path}: {error.strerror or error}") from None
    if begin.startswith(ZSTANDARD):
        raise UserError(
            f"data set 'webdataset': {path} is compressed by zstd, which is not read; unpack it "
            "with 'zstd -d'"
        )
    return next((opener for mark, opener in PACKED.items() if begin.startswith(mark)), None)


def _unpack(packed: Path, target: Path, room: float, name: str) -> None:
    """Unpack a compressed tar. Of one that is cut off or damaged, what comes before is kept."""
    opener = _packed(packed)
    assert opener is not None
    temporary, size = temporary_beside(target), 0
    cut = contextlib.suppress(EOFError, zlib.error, lzma.LZMAError)
    try:
        with open(temporary, "wb") as file, cut, opener(packed) as source:
            while content := _read(source, name):
                file.write(content)
                size += len(content)
                if size > room:
                    raise UserError(
                        f"data set 'webdataset': {name}: unpacked, it is larger than the cache "
                        f"({room / 1e9:g} GB); raise data.cache_gb, or unpack it"
                    )
        if not size:
            raise UserError(
                f"data set 'webdataset': {name} is compressed, and cut off or damaged at its "
                "beginning; get it again, or remove it"
            )
        refuse_other_files(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _read(source: BinaryIO, name: str) -> bytes:
    """Read the next part of a compressed file; nothing where it is damaged."""
    try:
        return source.read1(CHUNK)  # type: ignore[attr-defined, no-any-return]
    except gzip.BadGzipFile:
        return b""
    except OSError as error:
        if error.errno is None:  # bz2: invalid data
            return b""
        raise UserError(f"data set 'webdataset': {name}: {error.strerror}") from None


def _indexed(shard: Shard, kept: Path) -> Index:
    """Return the stored index of a shard, or make and store it; NoTar if it is not a tar."""
    with contextlib.suppress(OSError, ValueError, EOFError, KeyError), open(kept, "rb") as file:
        rows: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        told = json.loads(file.read())
        if rows.dtype.names == row_type(1).names:
            return Index(rows, told["endings"], told["left"])
    # The stored index is missing or damaged.
    index = index_of(shard.path(), shard.choice)
    content = io.BytesIO()
    np.save(content, index.rows, allow_pickle=False)
    content.write(json.dumps({"endings": index.endings, "left": index.left}).encode())
    write_bytes(kept, content.getvalue())
    return index
