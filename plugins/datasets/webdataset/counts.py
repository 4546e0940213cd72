"""How many examples remote shards have, and downloads ahead of their use."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from t2i.core.errors import T2IError, UserError
from t2i.core.fetch.paths import cache_dir
from t2i.core.fetch.transfer import locked
from t2i.core.io.json_files import read_json, write_json
from t2i.core.io.terminal import note
from t2i.plugins.datasets.webdataset.recognise import TAR
from t2i.plugins.datasets.webdataset.remote import json_at
from t2i.plugins.datasets.webdataset.shards import RemoteShard, Shard

ASKED_AT_ONCE = 16  # number of parallel requests for statistics
MOST_EXAMPLES = 10**8  # a larger count in a shard's statistics is none


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
        told[shard.url] if isinstance(shard, RemoteShard) else len(shard.index().rows)
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
        if uncounted := found.count(None):
            note(
                f"data set 'webdataset': {uncounted} of {len(shards)} shards have no statistics "
                "(NAME_stats.json) beside them: they are downloaded to count their examples"
            )
        told = {
            shard.url: len(shard.index().rows) if count is None else count
            for shard, count in zip(shards, found, strict=True)
        }
        write_json(kept, told)
        return told


def _successes(shard: RemoteShard) -> int | None:
    """Return the count in NAME_stats.json, or None if there is no such file or count."""
    parts = urlsplit(shard.url)
    stats = json_at(parts._replace(path=f"{TAR.sub('', parts.path)}_stats.json").geturl())
    count = stats.get("successes") if isinstance(stats, dict) else None
    return count if type(count) is int and 0 <= count <= MOST_EXAMPLES else None


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
