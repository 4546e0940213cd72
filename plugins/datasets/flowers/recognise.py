"""Recognise folders of Oxford Flowers 102. This module imports neither torch nor NumPy."""

from __future__ import annotations

import re
from pathlib import Path

NAME = re.compile(r"image_\d{5}\.jpg", re.IGNORECASE)


def recognise(folder: Path) -> str | None:
    """Look whether a folder has the images of Oxford Flowers in `jpg`.

    Args:
        folder: The folder.

    Returns:
        "Oxford Flowers 102 (jpg/image_00001.jpg ...)", or None.
    """
    images = folder / "jpg"
    if not images.is_dir():
        return None
    try:
        first = next((path.name for path in images.iterdir() if NAME.fullmatch(path.name)), None)
    except OSError:
        return None
    return f"Oxford Flowers 102 (jpg/{first} ...)" if first else None
