"""Files that desktops and version control put into any folder. They belong to no command."""

from __future__ import annotations

from pathlib import Path

CLUTTER = frozenset({
    ".DS_Store", ".localized", "Thumbs.db", "desktop.ini", ".directory", ".gitkeep", ".keep",
    "lost+found",
})  # fmt: skip
"""Their names."""


def entries(folder: Path) -> list[Path]:
    """List what is in a folder, without clutter.

    Args:
        folder: The folder.

    Returns:
        Its files and folders. Empty: the folder is free.

    Raises:
        OSError: It cannot be read.
    """
    return [path for path in folder.iterdir() if path.name not in CLUTTER]


def clutter_in(folder: Path) -> list[Path]:
    """List the clutter in a folder.

    Args:
        folder: The folder.

    Returns:
        The files, and no folders. Empty also if there is no such folder.
    """
    return [path for path in map(folder.joinpath, sorted(CLUTTER)) if path.is_file()]
