"""Where t2i keeps what it may throw away and make again."""

from __future__ import annotations

import os
from pathlib import Path

from t2i.core.errors import UserError


def cache_dir() -> Path:
    """The folder T2I_HOME, or ~/.cache/t2i (under XDG_CACHE_HOME if that is set); made when first asked for."""
    home = os.environ.get("T2I_HOME")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(home) if home else Path(base) / "t2i"
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cache folder {path}: {error.strerror}; set T2I_HOME to a writable folder"
        ) from None
    return path
