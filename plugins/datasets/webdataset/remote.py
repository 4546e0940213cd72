"""Files behind URLs: http and https by our own downloader, stores of objects through fsspec."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

from t2i.core.errors import UserError
from t2i.core.fetch.incomplete import Remote, part_of
from t2i.core.fetch.transfer import Allowance, TooLarge, transfer
from t2i.core.fetch.web import LARGEST_JSON, small_json
from t2i.core.io.terminal import note

WEB = ("http://", "https://")
STORES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}
"""Package that opens the URLs of a scheme, through fsspec."""


def scheme_of(name: str) -> str:
    """Return the scheme of a URL.

    Args:
        name: Name of a shard.

    Returns:
        Such as "https" or "pipe", in lower case; "" if the name is a path.
    """
    scheme, colon, rest = name.partition(":")
    if not colon or len(scheme) < 2 or not scheme.replace("+", "").replace(".", "").isalnum():
        return ""
    return scheme.lower() if rest.startswith("/") or scheme.lower() == "pipe" else ""


def refuse_other_schemes(name: str) -> None:
    """Check that a shard can be read.

    Args:
        name: Its name.

    Raises:
        UserError: It is a URL that is not read.
    """
    scheme = scheme_of(name)
    if scheme == "pipe":
        raise UserError(
            f"data set 'webdataset': {name[:200]}: 'pipe:' runs a program, which a data set never "
            "does here; name the shard by its own URL (https, s3, gs, hf) or as a file"
        )
    if scheme not in ("", "http", "https", "file", *STORES):
        raise UserError(
            f"data set 'webdataset': {name[:200]}: shards are files, or behind http, https, s3, gs "
            f"and hf, not '{scheme}'; download them and name the folder with --data-dir"
        )


def download(
    url: str, target: Path, room: float, whole: Callable[[Path], bool] = lambda _: True
) -> None:
    """Download a file, unless it is there. Waiting and further attempts are said on stderr.

    Args:
        url: Its URL.
        target: Where it goes. The caller holds its lock.
        room: Size of the cache in bytes; a larger file is refused.
        whole: Tells of a file whether its end is there, where the server says no length.

    Raises:
        UserError: It cannot be downloaded.
    """
    try:
        if url.startswith(WEB):
            transfer(Remote(url), target, most=int(room), whole=whole, say=note)
        elif not target.exists():
            _from_store(url, target, int(room))
    except TooLarge as error:
        raise UserError(
            f"{error}; the cache has {room / 1e9:g} GB: raise data.cache_gb if the shard is sound"
        ) from None


def _from_store(url: str, target: Path, most: int) -> None:
    """Download a file of at most `most` bytes from a store of objects."""
    part = part_of(target)
    part.parent.mkdir(parents=True, exist_ok=True)
    allowance, size = Allowance(url, part.parent, most), 0
    try:
        with _opened(url) as source, open(part, "wb") as file:
            while content := source.read(1 << 20):
                size += file.write(content)
                allowance.check(size)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except UserError:
        raise
    except Exception as error:  # each store has errors of its own
        raise UserError(f"{url}: {_told(error)}; the same command tries again") from None
    finally:
        part.unlink(missing_ok=True)


def json_at(url: str) -> Any:
    """Read a small JSON document.

    Args:
        url: Its URL.

    Returns:
        The document; None if there is none.
    """
    if url.startswith(WEB):
        return small_json(url)
    try:
        with _opened(url) as file:
            return json.loads(file.read(LARGEST_JSON))
    except (UserError, OSError, ValueError, RecursionError):
        return None


def _opened(url: str) -> BinaryIO:
    """Open a file in a store of objects."""
    import fsspec

    try:
        return cast(BinaryIO, fsspec.open(url, "rb").open())
    except (ImportError, ValueError) as error:
        package = STORES[scheme_of(url)]
        if isinstance(error, ValueError) and "rotocol" not in str(error):
            raise UserError(f"{url}: {_told(error)}") from None
        raise UserError(
            f"{url}: reading it needs the package {package}: pip install 't2i-zoo[remote]'"
        ) from None
    except FileNotFoundError:
        raise UserError(f"{url}: there is no such file") from None
    except Exception as error:  # each store has errors of its own
        raise UserError(f"{url}: cannot be opened: {_told(error)}") from None


def _told(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
