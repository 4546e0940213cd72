"""Recognise folders of CUB-200-2011. This module imports neither torch nor NumPy."""

from __future__ import annotations

import re
from pathlib import Path

OFFICIAL = "CUB_200_2011"
PLACES = (OFFICIAL, f"{OFFICIAL}/{OFFICIAL}", "")
"""Where the folder of CUB's authors may be; the second is an archive unpacked into its own name."""


def recognise(folder: Path) -> str | None:
    """Look whether a folder has the images of CUB-200-2011 in folders of classes.

    Args:
        folder: The folder.

    Returns:
        What was found, such as "CUB-200-2011 (CUB_200_2011/images)", or None.
    """
    for place in PLACES:
        official = folder / place
        named = (official / "images.txt").is_file() or OFFICIAL in (place, official.name)
        if not named or not (official / "images").is_dir():
            continue
        try:
            classes = [path.name for path in (official / "images").iterdir()]
        except OSError:
            continue
        if any(re.match(r"\d{3}\.", name) for name in classes):
            return f"CUB-200-2011 ({(official / 'images').relative_to(folder).as_posix()})"
    return None
