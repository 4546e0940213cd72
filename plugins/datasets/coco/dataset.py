"""The data set `coco`: official annotations, and photographs in folders or in the official zips.

DIR/annotations/captions_val2017.json   or in DIR/annotations_trainval2017.zip
DIR/val2017/000000000139.jpg            or in DIR/val2017.zip; also under DIR/images
"""

from __future__ import annotations

import json
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.fetch.downloads import fetched
from t2i.plugins.common.images.image_files import (
    Archive,
    Entry,
    Folder,
    ImageFiles,
    Source,
    captions_of,
    data_folder,
    open_archive,
    safe_name,
)
from t2i.plugins.datasets.coco.config import CocoConfig

NAME = "coco"
YEARS = (2014, 2017)
REMEDY = "'t2i fetch coco' gets it (of 2017: with --parts), or name another folder with --data-dir"


def build(config: CocoConfig, split: str) -> ImageFiles:
    """Build one split.

    Args:
        config: Settings.
        split: "train" or "val".

    Returns:
        The images in the order of their ids, each with its captions in the order of theirs.

    Raises:
        UserError: Annotations or images are missing, or the annotations are not COCO's.
    """
    root = _root(config)
    year, document, where = _annotations(root, config, split)
    return ImageFiles(config, NAME, _images(root, f"{split}{year}"), _entries(document, where))


def _root(config: CocoConfig) -> Path:
    """Return the folder of the data set."""
    if config.dir is None:
        return fetched(NAME)
    try:
        return data_folder(config, NAME)
    except UserError:
        raise UserError(f"data set '{NAME}': {config.dir} is no folder; {REMEDY}") from None


def _annotations(root: Path, config: CocoConfig, split: str) -> tuple[int, Any, str]:
    """Return the annotations of a split: (year, document, where they are)."""
    years = YEARS if config.year is None else (config.year,)
    for year in years:
        file = f"annotations/captions_{split}{year}.json"
        archive = root / f"annotations_trainval{year}.zip"
        if (root / file).is_file():
            return year, _document((root / file).read_bytes(), str(root / file)), str(root / file)
        if archive.is_file():
            where = f"{archive}:{file}"
            return year, _document(_unpacked(archive, file), where), where
    names = " or ".join(f"captions_{split}{year}.json" for year in years)
    raise UserError(f"data set '{NAME}': there is no {names} in {root / 'annotations'}; {REMEDY}")


def _unpacked(archive: Path, file: str) -> bytes:
    """Read one file from a zip."""
    with open_archive(archive) as opened:
        try:
            return opened.read(file)
        except (KeyError, zipfile.BadZipFile, OSError, ValueError) as error:
            raise UserError(f"{archive}: cannot read {file} in it ({error}); {REMEDY}") from None


def _document(content: bytes, where: str) -> Any:
    """Parse JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON ({str(error)[:80]}); {REMEDY}") from None


def _entries(document: Any, where: str) -> list[Entry]:
    """Return the images that have captions; the images of test have none."""
    captions: defaultdict[int, list[tuple[int, str]]] = defaultdict(list)
    try:
        for note in document["annotations"]:
            captions[int(note["image_id"])].append((int(note["id"]), str(note["caption"])))
        images = sorted((int(image["id"]), str(image["file_name"])) for image in document["images"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where} holds no captions as COCO writes them ({type(error).__name__}: {error})"
        ) from None
    return [
        Entry(
            str(number),
            safe_name(file, where),
            captions_of(text for _, text in sorted(captions[number])),
        )
        for number, file in images
        if number in captions
    ]


def _images(root: Path, name: str) -> Source:
    """Return the folder or zip with the images of a split, such as "val2017"."""
    places: Sequence[Path] = (root, root / "images")
    for folder in (place / name for place in places):
        if folder.is_dir():
            return Folder(folder)
    for archive in (place / f"{name}.zip" for place in places):
        if archive.is_file():
            open_archive(archive).close()  # raise an error now if the zip is damaged
            return Archive(archive, f"{name}/")
    raise UserError(f"data set '{NAME}': there is neither {root / name} nor {name}.zip; {REMEDY}")
