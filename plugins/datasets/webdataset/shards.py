"""The shards of a set: which they are, where their bytes are, and how many examples each has."""

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

MOST = 1_000_000  # shards that a pattern may stand for
ASKED_AT_ONCE = 16
FORMAT = 1  # raise it whenever the same tar gives another index


def is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def expanded(pattern: str) -> list[str]:
    """The names that a pattern stands for: {00000..00099} counts (with the width of its first number), {a,b} lists."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if not found:
        return [pattern]
    counted = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if counted:
        first, last = int(counted[1]), int(counted[2])
        if not 0 <= last - first < MOST:
            raise UserError(
                f"data set 'webdataset': shards = {pattern}: {found[0]} stands for no range of names"
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
        """What errors call it."""

    @property
    def stem(self) -> str:
        """The part of its examples' keys that tells shards apart."""
        return PurePosixPath(urlsplit(self.name).path).name.removesuffix(".tar")

    @abstractmethod
    def path(self) -> Path:
        """Where its bytes are, brought there if need be."""

    @abstractmethod
    def index(self) -> np.ndarray:
        """Its examples (t2i.plugins.datasets.webdataset.tar), read from the tar once and kept."""

    @abstractmethod
    def identity(self) -> list[Any]:
        """What tells it from another version of itself."""


@dataclass(frozen=True)
class LocalShard(Shard):
    """A tar file of this machine. Its index is kept among the things that can be made again."""

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
    """A tar file behind a URL, brought whole into a cache of bounded size when it is first needed."""

    url: str
    room: float  # bytes of the cache

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
        for _ in range(3):  # another process may have made room with it meanwhile
            kept = self.path()
            try:
                return _indexed(self, kept.with_suffix(".npy"))
            except FileNotFoundError:
                continue
        raise UserError(
            f"{self.url}: the cache {_cache()} is too small for what is read at once; raise data.cache_gb"
        )


def _cache() -> Path:
    return cache_dir() / "webdataset" / "shards"


def _touch(path: Path) -> None:
    """Notes that a shard is in use. The time of its last change stays."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def make_room(room: float, keep: Path) -> None:
    """Removes the shards whose use is longest ago until the cache holds no more than `room` bytes. `keep` stays."""
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
    """The index of a shard, from where it is kept, or made and kept there. UserError if it is no tar."""
    with contextlib.suppress(OSError, ValueError, EOFError), open(kept, "rb") as file:
        found: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        if found.dtype.names == row_type(1).names:
            return found
    # It is not there, or damaged.
    path = shard.path()
    try:
        index = index_of(path)
    except NoTar:
        raise UserError(
            f"data set 'webdataset': {shard.name} is no tar file; remove it, or mend data.shards"
        ) from None
    content = io.BytesIO()
    np.save(content, index, allow_pickle=False)
    write_bytes(kept, content.getvalue())
    return index


def find(config: WebDatasetConfig) -> list[Shard]:
    """The shards that the settings name. UserError if there are none, or a local one is not there."""
    patterns = (config.shards,) if isinstance(config.shards, str) else config.shards
    folder = Path(config.dir).expanduser() if config.dir is not None else None
    if folder is not None and not folder.is_dir():
        raise UserError(f"data set 'webdataset': {folder} is no folder; say which with --data-dir")
    if not patterns:
        if folder is None:
            raise UserError(
                "data set 'webdataset': say where its shards are, with --data-dir FOLDER or --set data.shards=URL"
            )
        files = sorted(folder.glob("*.tar"))
        if not files:
            raise UserError(
                f"data set 'webdataset': there is no *.tar in {folder}; name the shards with data.shards"
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
            f"data set 'webdataset': shard {absent} is not there; mend data.shards or --data-dir"
        )
    return shards


def _shard(name: str, folder: Path | None, room: float) -> Shard:
    if is_url(name):
        return RemoteShard(name, room)
    return LocalShard((folder or Path()) / Path(name).expanduser())


# --- how many examples ------------------------------------------------------------------------------------------------


def counts(shards: Sequence[Shard]) -> list[int]:
    """How many examples each shard has. Of one on this machine: what its index says. Of one behind a URL: "successes"
    of the file NAME_stats.json beside it, which img2dataset writes; else it is brought here and read."""
    remote = [shard for shard in shards if isinstance(shard, RemoteShard)]
    told = _told(remote)
    return [
        told[shard.url] if isinstance(shard, RemoteShard) else len(shard.index())
        for shard in shards
    ]


def _told(shards: Sequence[RemoteShard]) -> dict[str, int]:
    """The counts of shards behind URLs; asked for once, then kept."""
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
    """What NAME_stats.json says; None if there is none."""
    parts = urlsplit(shard.url)
    stats = small_json(
        parts._replace(path=f"{parts.path.removesuffix('.tar')}_stats.json").geturl()
    )
    count = stats.get("successes") if isinstance(stats, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None


class Ahead:
    """Brings shards here in a thread, before they are needed. What goes wrong is left to whoever needs them."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def bring(self, shards: Iterable[Shard]) -> None:
        """Begins with these, unless it is at others still."""
        wanted = [shard for shard in shards if isinstance(shard, RemoteShard)]
        if wanted and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=_bring, args=(wanted,), daemon=True)
            self._thread.start()


def _bring(shards: Sequence[RemoteShard]) -> None:
    for shard in shards:
        try:
            shard.path()
        except (T2IError, OSError):
            return
