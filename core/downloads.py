"""Where `t2i fetch NAME` puts what it gets."""

from __future__ import annotations

from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.paths import cache_dir


def fetched(name: str, file: str = "") -> Path:
    """The folder, or a file in it, that `t2i fetch NAME` has put there. UserError if it is absent."""
    path = cache_dir() / "fetched" / name / file
    if not path.exists():
        raise UserError(f"{path} is not here: 't2i fetch {name}' gets it")
    return path
