"""Files behind URLs: http and https by our own downloader, stores of objects through fsspec."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO, cast

from t2i.core.errors import UserError
from t2i.core.fetch.transfer import Remote, part_of, small_json, transfer

WEB = ("http://", "https://")
STORES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "hf": "huggingface_hub"}
"""Package that opens the URLs of a scheme, through fsspec."""

LARGEST_JSON = 1 << 20  # bytes of a JSON document that are read


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


def download(url: str, target: Path) -> None:
    """Download a file, unless it is there.

    Args:
        url: Its URL.
        target: Where it goes. The caller holds its lock.

    Raises:
        UserError: It cannot be downloaded.
    """
    if url.startswith(WEB):
        transfer(Remote(url), target)
    elif not target.exists():
        part = part_of(target)
        part.parent.mkdir(parents=True, exist_ok=True)
        with _opened(url) as source, open(part, "wb") as file:
            try:
                shutil.copyfileobj(source, file, 1 << 20)
            except Exception as error:  # each store has errors of its own
                raise UserError(f"{url}: {_told(error)}; the same command tries again") from None
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)


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
