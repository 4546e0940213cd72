"""Names of tar shards, and folders of them. This module imports neither torch nor NumPy."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from t2i.plugins.common.images.splits import split_word

TAR = re.compile(r"\.(tar|tar\.gz|tgz|tar\.bz2|tbz2?|tar\.xz|txz|tar\.zst|tzst)$", re.IGNORECASE)
"""End of the name of a tar, plain or compressed."""


def is_tar(name: str) -> bool:
    """Tell whether a name is that of a tar. Hidden files are none.

    Args:
        name: The name of the file.

    Returns:
        True for .tar, .tar.gz, .tgz and the like.
    """
    return TAR.search(name) is not None and not PurePosixPath(name).name.startswith(".")


def split_of(name: str) -> str:
    """Return the split that the name of a shard says.

    Args:
        name: Its path in the data set, with "/".

    Returns:
        "train", "val" or "test"; "" if no word of the name, or of its folder, is a split.
    """
    for part in reversed(TAR.sub("", name).lower().split("/")):
        for word in re.split(r"[^a-z]+", part):
            if split := split_word(word):
                return split if split in ("train", "test") else "val"
    return ""


def recognise(folder: Path) -> str | None:
    """Look whether a folder holds tar shards and nothing else that is a data set.

    Args:
        folder: The folder, or one tar.

    Returns:
        What was found, such as "8 tar shards (00000.tar, ...)", or None.
    """
    if folder.is_file():
        return f"a tar shard ({folder.name})" if is_tar(folder.name) else None
    files, folders = _listed(folder)
    found = [name for name in files if is_tar(name)]
    if not found and 0 < len(folders) <= 100:
        inner = [(name, *_listed(folder / name)) for name in folders]
        if any(subfolders for _, _, subfolders in inner):
            return None
        tars = [[f"{name}/{file}" for file in files if is_tar(file)] for name, files, _ in inner]
        found, folders = ([name for part in tars for name in part], []) if all(tars) else ([], [])
    if not found or folders or any(_is_image(name) for name in files):
        return None  # archives beside the images that were in them
    if found[1:]:
        return f"{len(found)} tar shards ({found[0]}, ...)"
    return f"a tar shard ({found[0]})"


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of files and of folders in a folder, sorted, without hidden ones."""
    try:
        entries = [path for path in folder.iterdir() if not path.name.startswith((".", "__"))]
    except OSError:
        return [], []
    folders = sorted(path.name for path in entries if path.is_dir())
    return sorted({path.name for path in entries} - set(folders)), folders


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")
