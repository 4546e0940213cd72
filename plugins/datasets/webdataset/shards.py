"""The shards of a data set: their names, their bytes, and how many examples each has."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import os
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from t2i.core.errors import T2IError, UserError
from t2i.core.fetch.paths import cache_dir
from t2i.core.fetch.transfer import Remote, locked, small_json, transfer
from t2i.core.io.files import read_json, write_bytes, write_json
from t2i.plugins.datasets.webdataset.config import WebDatasetConfig
from t2i.plugins.datasets.webdataset.tar import NoTar, index_of, row_type

MOST = 1_000_000  # largest number of shards that a pattern may stand for
ASKED_AT_ONCE = 16  # number of parallel requests for statistics
FORMAT = 1  # to be raised whenever the same tar gives another index


def is_url(name: str) -> bool:
    """Return whether a shard's name is a URL.

    Args:
        name: The name.

    Returns:
        True for http and https.
    """
    return name.startswith(("http://", "https://"))


def expanded(pattern: str) -> list[str]:
    """List the names that a pattern stands for.

    Args:
        pattern: A name; {00000..00099} counts, with the width of its first number, and {a,b} lists.

    Returns:
        The names.

    Raises:
        UserError: A range is descending, or there are more than MOST names.
    """
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    counted = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if counted:
        first, last = int(counted[1]), int(counted[2])
        if not 0 <= last - first < MOST:
            raise UserError(
                f"data set 'webdataset': shards = {pattern}: {found[0]} stands for no range of "
                "names"
            )
        choices = [f"{number:0{len(counted[1])}d}" for number in range(first, last + 1)]
    else:
        choices = found[1].split(",")
    tails = expanded(pattern[found.end() :])
    if len(choices) * len(tails) > MOST:
        raise UserError(
            f"data set 'webdataset': shards = {pattern} stands for more than {MOST} names"
        )
    return [f"{pattern[: found.start()]}{choice}{tail}" for choice in choices for tail in tails]


class Shard(ABC):
    """A tar file."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name for error messages: the path or the URL."""

    @property
    def stem(self) -> str:
        """First part of the keys of its examples, which distinguishes the shards."""
        return PurePosixPath(urlsplit(self.name).path).name.removesuffix(".tar")

    @abstractmethod
    def path(self) -> Path:
        """Return the file, which is downloaded first if need be.

        Returns:
            Its path.

        Raises:
            UserError: It cannot be downloaded.
        """

    @abstractmethod
    def index(self) -> np.ndarray:
        """Return the index of its examples, which is made from the tar once and then stored.

        Returns:
            An array of `t2i.plugins.datasets.webdataset.tar.row_type`.

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
    """

    file: Path

    @property
    def name(self) -> str:
        return str(self.file)

    def path(self) -> Path:
        return self.file

    def identity(self) -> list[Any]:
        return [self.file.name, self.file.stat().st_size]

    def index(self) -> np.ndarray:
        state = self.file.stat()
        told = f"{FORMAT} {self.file.absolute()} {state.st_size} {state.st_mtime_ns}"
        kept = (
            cache_dir()
            / "webdataset"
            / "indexes"
            / f"{hashlib.sha256(told.encode()).hexdigest()}.npy"
        )
        return _indexed(self, kept)


@dataclass(frozen=True)
class RemoteShard(Shard):
    """A tar file behind a URL.

    It is downloaded whole into a cache of limited size when it is first needed.

    Args:
        url: Its URL.
        room: Size of the cache in bytes.
    """

    url: str
    room: float

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
            transfer(Remote(self.url), kept)
            make_room(self.room, kept)
        _touch(kept)
        return kept

    def index(self) -> np.ndarray:
        for _ in range(3):  # another process may have removed it meanwhile, to make room
            kept = self.path()
            try:
                return _indexed(self, kept.with_suffix(".npy"))
            except FileNotFoundError:
                continue
        raise UserError(
            f"{self.url}: the cache {_cache()} is too small for what is read at once; raise "
            "data.cache_gb"
        )


def _cache() -> Path:
    return cache_dir() / "webdataset" / "shards"


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
                path.unlink(missing_ok=True)
                path.with_suffix(".npy").unlink(missing_ok=True)
                total -= size


def _indexed(shard: Shard, kept: Path) -> np.ndarray:
    """Return the stored index of a shard, or make and store it; a UserError if it is not a tar."""
    with contextlib.suppress(OSError, ValueError, EOFError), open(kept, "rb") as file:
        found: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        if found.dtype.names == row_type(1).names:
            return found
    # The stored index is missing or damaged.
    path = shard.path()
    try:
        index = index_of(path)
    except NoTar:
        raise UserError(
            f"data set 'webdataset': {shard.name} is no tar file; remove it, or correct data.shards"
        ) from None
    content = io.BytesIO()
    np.save(content, index, allow_pickle=False)
    write_bytes(kept, content.getvalue())
    return index


def find(config: WebDatasetConfig) -> list[Shard]:
    """Find the shards that the settings name.

    Args:
        config: Settings.

    Returns:
        The shards, in the order of their names in a folder, or of `shards`.

    Raises:
        UserError: There are none, or a local one does not exist.
    """
    patterns = (config.shards,) if isinstance(config.shards, str) else config.shards
    folder = Path(config.dir).expanduser() if config.dir is not None else None
    if folder is not None and not folder.is_dir():
        raise UserError(f"data set 'webdataset': {folder} is no folder; say which with --data-dir")
    if not patterns:
        if folder is None:
            raise UserError(
                "data set 'webdataset': say where its shards are, with --data-dir FOLDER or --set "
                "data.shards=URL"
            )
        files = sorted(folder.glob("*.tar"))
        if not files:
            raise UserError(
                f"data set 'webdataset': there is no *.tar in {folder}; name the shards with "
                "data.shards"
            )
        return [LocalShard(file) for file in files]
    names = list(itertools.chain.from_iterable(map(expanded, patterns)))
    shards: list[Shard] = [_shard(name, folder, config.cache_gb * 1e9) for name in names]
    absent = next(
        (
            shard.name
            for shard in shards
            if isinstance(shard, LocalShard) and not shard.file.is_file()
        ),
        None,
    )
    if absent:
        raise UserError(
            f"data set 'webdataset': shard {absent} is not there; correct data.shards or --data-dir"
        )
    return shards


def _shard(name: str, folder: Path | None, room: float) -> Shard:
    """Make the shard of one name."""
    if is_url(name):
        return RemoteShard(name, room)
    return LocalShard((folder or Path()) / Path(name).expanduser())


# --- number of examples ---------------------------------------------------------------------------


def counts(shards: Sequence[Shard]) -> list[int]:
    """Count the examples of each shard.

    The count of a local shard is that of its index. The count of a remote one is "successes" in the
    file NAME_stats.json beside it, which img2dataset writes; without that file the shard is
    downloaded and indexed.

    Args:
        shards: The shards.

    Returns:
        A count for each.

    Raises:
        UserError: A shard is not a tar, or cannot be downloaded.
    """
    remote = [shard for shard in shards if isinstance(shard, RemoteShard)]
    told = _told(remote)
    return [
        told[shard.url] if isinstance(shard, RemoteShard) else len(shard.index())
        for shard in shards
    ]


def _told(shards: Sequence[RemoteShard]) -> dict[str, int]:
    """Return the counts of remote shards by URL. They are requested once, then stored."""
    if not shards:
        return {}
    digest = hashlib.sha256("\n".join(shard.url for shard in shards).encode()).hexdigest()
    kept = cache_dir() / "webdataset" / "counts" / f"{digest[:32]}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with locked(kept):
        try:
            known = read_json(kept, "counts")
            return {shard.url: int(known[shard.url]) for shard in shards}
        except (UserError, KeyError, TypeError, ValueError):
            pass
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            found = list(pool.map(_successes, shards))
        told = {
            shard.url: len(shard.index()) if count is None else count
            for shard, count in zip(shards, found, strict=True)
        }
        write_json(kept, told)
        return told


def _successes(shard: RemoteShard) -> int | None:
    """Return the count in NAME_stats.json, or None if there is no such file or count."""
    parts = urlsplit(shard.url)
    stats = small_json(
        parts._replace(path=f"{parts.path.removesuffix('.tar')}_stats.json").geturl()
    )
    count = stats.get("successes") if isinstance(stats, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


class Ahead:
    """Downloads shards in a thread, before they are needed.

    Errors are ignored: they are raised when the shard is read.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def bring(self, shards: Iterable[Shard]) -> None:
        """Start to download shards, unless earlier ones are still being downloaded.

        Args:
            shards: The shards; local ones are ignored.
        """
        wanted = [shard for shard in shards if isinstance(shard, RemoteShard)]
        if wanted and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=_bring, args=(wanted,), daemon=True)
            self._thread.start()


def _bring(shards: Sequence[RemoteShard]) -> None:
    """Download shards until one fails."""
    for shard in shards:
        try:
            shard.path()
        except (T2IError, OSError):
            return
