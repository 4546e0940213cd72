"""Whether a folder looks like one of images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from t2i.core.errors import UserError
from t2i.plugins.datasets.imagefolder.files import Files, suffix_of


def recognise(folder: Path) -> str | None:
    """Look whether a folder holds images.

    Args:
        folder: The folder.

    Returns:
        Which images, or the parquet files that may hold some. None: neither.
    """
    try:
        files = Files.of(folder, "train")
    except UserError:
        return None
    if files.images:
        kinds = Counter(map(suffix_of, files.images)).most_common(3)
        where = f" in {files.archive.name}" if files.archive else ""
        return f"images ({', '.join(f'{count} {kind}' for kind, count in kinds)}){where}"
    packed = sum(suffix_of(path) == ".parquet" for path in files.listing.sizes)
    return f"{packed} parquet files" if packed else None
