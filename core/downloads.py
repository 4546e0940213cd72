"""Where `t2i fetch` puts what is needed from outside."""

from __future__ import annotations

from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.paths import cache_dir


def fetched(name: str, file: str = "") -> Path:
    """Path of a file (or the folder) that `t2i fetch NAME` has put here. UserError if it is absent."""
    path = cache_dir() / "fetched" / name / file
    if not path.exists():
        raise UserError(f"{path} is not here: 't2i fetch {name}' gets it")
    return path
