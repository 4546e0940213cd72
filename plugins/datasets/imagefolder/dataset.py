"""The data set `imagefolder`: images in a folder, with captions in metadata or text files."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.images import SUFFIXES
from t2i.plugins.common.images.image_files import (
    Entry,
    Folder,
    ImageFiles,
    captions_of,
    data_folder,
    in_val,
    safe_name,
)
from t2i.plugins.datasets.imagefolder.config import ImageFolderConfig

NAME = "imagefolder"
VALIDATION = ("val", "validation", "test")
METADATA = ("metadata.jsonl", "metadata.csv")
COLUMNS = ("text", "captions", "caption")

Captions = dict[str, list[str]]
"""The captions of each image, by its path in the folder."""


def build(config: ImageFolderConfig, split: str) -> ImageFiles:
    """Build one split.

    Where the folder has "train" and one of VALIDATION, these are the splits. Otherwise the images
    are split by a hash of their names.

    Args:
        config: Settings.
        split: "train" or "val".

    Returns:
        The images in the order of their names.

    Raises:
        UserError: The folder does not exist, its metadata are wrong, or the split is empty.
    """
    root = data_folder(config, NAME)
    train = root / "train" if (root / "train").is_dir() else root
    held = next(
        (root / name for name in VALIDATION if train != root and (root / name).is_dir()), None
    )
    folder = held if split == "val" and held else train
    found = _captions(folder)
    names = sorted(found)
    if held is None:
        names = [name for name in names if in_val(name, config.val_share) == (split == "val")]
    spare = [] if config.caption is None else [config.caption]
    entries = [Entry(name, name, captions_of(found[name]) or tuple(spare)) for name in names]
    if not entries:
        raise UserError(
            f"data set '{NAME}': there is no image for '{split}' in {folder}; name another "
            "--data-dir"
        )
    return ImageFiles(config, NAME, Folder(folder), entries)


def _captions(folder: Path) -> Captions:
    """Return the images that a folder's metadata name; without metadata, all images in it."""
    for metadata in (folder / name for name in METADATA):
        if metadata.is_file():
            return _by_metadata(metadata)
    sizes = Folder(folder).sizes()
    images = [name for name in sizes if Path(name).suffix.lower() in SUFFIXES]
    return {name: _beside(folder, name) if _text_of(name) in sizes else [] for name in images}


def _text_of(name: str) -> str:
    """Return the name of the text file beside an image."""
    return Path(name).with_suffix(".txt").as_posix()


def _beside(folder: Path, name: str) -> list[str]:
    """Read the captions in the text file beside an image, one a line."""
    return (folder / _text_of(name)).read_text("utf-8-sig", "replace").splitlines()


def _by_metadata(metadata: Path) -> Captions:
    """Return the images that metadata name, with the captions of all their rows."""
    found: Captions = {}
    for where, row in _rows(metadata):
        name = row.get("file_name")
        if not isinstance(name, str):
            raise UserError(f"{where}: it has no file_name; each row names an image in the folder")
        found.setdefault(safe_name(name, where), []).extend(_texts(row, where))
    return found


def _rows(metadata: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Read the rows of metadata, each with its place for error messages."""
    text = metadata.read_text("utf-8-sig", "replace")
    if metadata.suffix == ".csv":
        for number, row in enumerate(csv.DictReader(text.splitlines()), start=2):
            yield f"{metadata}, row {number}", row
        return
    for number, line in enumerate(text.split("\n"), start=1):
        where = f"{metadata}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise UserError(f"{where}: not JSON") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: not an object with file_name and text")
        yield where, row


def _texts(row: Mapping[str, Any], where: str) -> list[str]:
    """Return the captions of a row, whose column holds one text or a list of them."""
    column = next((name for name in COLUMNS if row.get(name) is not None), None)
    value = [] if column is None else row[column]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UserError(f"{where}: {column} is neither a text nor a list of texts")
    return texts
