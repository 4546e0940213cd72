"""The cache folder, which holds only files that t2i can fetch or make again."""

from __future__ import annotations

import os
from pathlib import Path

from t2i.core.errors import UserError


def cache_dir() -> Path:
    """Return the cache folder, and create it if it does not exist.

    Returns:
        The folder T2I_HOME. Without that environment variable: XDG_CACHE_HOME/t2i, by default
        ~/.cache/t2i.

    Raises:
        UserError: The folder cannot be created.
    """
    home = os.environ.get("T2I_HOME") or ""
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        path = Path(home).expanduser() if home else Path(base).expanduser() / "t2i"
    except RuntimeError as error:  # "~" of nobody
        raise UserError(f"cache folder {home}: {error}; set T2I_HOME to a full path") from None
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cache folder {path}: {error.strerror}; set T2I_HOME to a writable folder"
        ) from None
    return path
