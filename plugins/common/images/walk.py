"""The files in a folder and its subfolders, without what systems and programs leave there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SYSTEM_FILES = frozenset(
    {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", ".directory", "picasa.ini"}
)
"""Files that file managers write, by their names in lower case."""

SYSTEM_FOLDERS = frozenset(
    {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "__pycache__"}
)
"""Folders that systems write, by their names in lower case."""


@dataclass
class Listing:
    """The files of a folder.

    Args:
        sizes: Size of each file in bytes, by its path in the folder, with "/".
        left: Why each file or folder was left alone, by its path.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def left_alone(path: str) -> str:
    """Say why a file or folder is left alone.

    Args:
        path: Its path in the data set's folder, with "/"; a folder's ends with one.

    Returns:
        The reason by which it is counted; "" if it is not left alone.
    """
    *folders, name = path.split("/")
    for folder in folders:
        if folder.lower() in SYSTEM_FOLDERS:
            return f"folder of the system ({folder})"
        if folder.startswith("."):
            return f"hidden folder ({folder})"
    if name.startswith("._"):
        return "a Mac's notes on a file (._NAME)"
    if name.lower() in SYSTEM_FILES:
        return f"file of the system ({name.strip()})"
    return "hidden file" if name.startswith(".") else ""


def listed(names: Mapping[str, int]) -> Listing:
    """Make a listing of names that are known, such as those in an archive.

    Args:
        names: Size of each file by its path.

    Returns:
        The listing.
    """
    listing = Listing()
    for name, size in names.items():
        if reason := left_alone(name):
            listing.left[name] = reason
        else:
            listing.sizes[name] = size
    return listing


def walk(root: Path) -> Listing:
    """List the files in a folder and its subfolders.

    Links to folders are followed, but no folder is read twice, so that a link to a folder around it
    ends nothing. Folders themselves come before links to them.

    Args:
        root: The folder.

    Returns:
        The files. What is left alone is listed too: hidden files and folders, those of systems,
        links that lead nowhere or to a folder that is read already, and folders that may not be
        read.
    """
    listing = Listing()
    visited: set[tuple[int, int]] = set()
    pending, links = [""], list[str]()
    while pending or links:
        prefix = pending.pop() if pending else links.pop(0)
        try:
            status = os.stat(root / prefix)
            if (status.st_dev, status.st_ino) in visited:
                listing.left[prefix] = "link to a folder that is read already"
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(root / prefix) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            listing.left[prefix] = f"folder that cannot be read ({error.strerror})"
            continue
        below = [entry for entry in found if not _noted(listing, prefix, entry)]
        pending += [f"{prefix}{entry.name}/" for entry in below if not entry.is_symlink()]
        links += [f"{prefix}{entry.name}/" for entry in below if entry.is_symlink()]
    return listing


def _noted(listing: Listing, prefix: str, entry: os.DirEntry[str]) -> bool:
    """Add a file to a listing, or the reason why something is left alone.

    Return False for a folder that is to be read.
    """
    try:
        if entry.is_dir():
            reason = left_alone(f"{prefix}{entry.name}/")
            if not reason:
                return False
        elif entry.is_file():
            reason = left_alone(prefix + entry.name)
            if not reason:
                listing.sizes[prefix + entry.name] = entry.stat().st_size
                return True
        else:
            reason = "link that leads nowhere" if entry.is_symlink() else "no regular file"
    except OSError as error:
        reason = f"file that cannot be looked at ({error.strerror})"
    listing.left[prefix + entry.name] = reason
    return True
