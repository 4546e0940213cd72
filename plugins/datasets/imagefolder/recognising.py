"""Whether a folder looks like one of images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.io.images import UNREAD_SUFFIXES as UNREAD
from t2i.plugins.datasets.imagefolder.files import DAMAGED, Files, suffix_of


def recognise(folder: Path) -> str | None:
    """Look whether a folder holds images.

    Args:
        folder: The folder.

    Returns:
        Which images, or what may hold some: parquet files, archives, or images of kinds that are
        not read. None: nothing of these.
    """
    try:
        files = Files.of(folder, "train")
    except UserError:  # building it says what is wrong
        return "archives of images" if any(folder.glob("*.zip")) else None
    if files.images:
        kinds = Counter(map(suffix_of, files.images)).most_common(3)
        where = f" in {files.archive.name}" if files.archive else ""
        return f"images ({', '.join(f'{count} {kind}' for kind, count in kinds)}){where}"
    packed = sum(suffix_of(path) == ".parquet" for path in files.listing.sizes)
    if packed:
        return f"{packed} parquet files"
    unread = Counter(kind for path in files.listing.sizes if (kind := suffix_of(path)) in UNREAD)
    if unread:
        kinds = unread.most_common(3)
        return f"images that are not read ({', '.join(f'{n} {kind}' for kind, n in kinds)})"
    return "a zip file" if DAMAGED in files.listing.left.values() else None
