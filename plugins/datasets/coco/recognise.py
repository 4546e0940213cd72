"""Recognise folders with COCO's annotations. This module imports neither torch nor NumPy."""

from __future__ import annotations

import re
from pathlib import Path

PLACES = ("annotations", "", "annotations/annotations")
"""Folders that may hold the annotations, by preference."""

OFFICIAL = re.compile(r"captions_(train|val)(.*)\.json")
"""Name of a file of captions: the split, and the year or whatever stands for it."""

KARPATHY = re.compile(r"dataset(_coco|_flickr8k|_flickr30k)?\.json")
"""Names of Karpathy's files, which hold all splits. The name alone, without a data set, says too
little to recognise a folder by it."""

ARCHIVE = re.compile(r"annotations_trainval(\d+)\.zip")


def listed(root: Path) -> list[Path]:
    """List the files in the folders that may hold annotations.

    Args:
        root: Folder of the data set.

    Returns:
        The files, those of `annotations` first, each folder in the order of names.
    """
    folders = [root / place for place in PLACES]
    return [
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix in (".json", ".zip") and not path.name.startswith(".") and path.is_file()
    ]


def recognise(folder: Path) -> str | None:
    """Look whether a folder holds captions as COCO or Karpathy has them.

    Args:
        folder: The folder.

    Returns:
        What was found, such as "COCO's captions (annotations/captions_val2017.json)", or None.
    """
    if not folder.is_dir():
        return None
    try:
        files = listed(folder)
    except OSError:
        return None
    for pattern, name in (
        (OFFICIAL, "COCO's captions"), (ARCHIVE, "COCO's annotations"),
        (KARPATHY, "Karpathy's captions"),
    ):  # fmt: skip
        found = next(
            (p for p in files if pattern.fullmatch(p.name) and p.name != "dataset.json"), None
        )
        if found:
            return f"{name} ({found.relative_to(folder).as_posix()})"
    return None
