"""Captions in text files beside the images, or under the same names in another folder."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from t2i.core.errors import UserError
from t2i.core.io.columns import CAPTIONS, folded, texts_in
from t2i.core.io.text import decode_text
from t2i.plugins.datasets.imagefolder.config import ImageFolderConfig
from t2i.plugins.datasets.imagefolder.files import Files, suffix_of

TEXTS = (".txt", ".caption", ".captions", ".cap")
"""Endings of caption files, the preferred first; capitals make no difference."""


@dataclass
class Beside:
    """The caption file of each image that has one.

    Args:
        files: Path of the file by that of the image.
        passed_over: Caption files that are not read, by reason.
    """

    files: dict[str, str] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)


def stem_of(path: str) -> str:
    """Return a path without the ending of the file's name.

    Args:
        path: The path.

    Returns:
        The path; the whole of it if the name has no ending.
    """
    folder, slash, name = path.rpartition("/")
    stem = name.rpartition(".")[0]
    return f"{folder}{slash}{stem or name}"


def is_beside(path: str, stems: frozenset[str]) -> bool:
    """Tell whether a file lies beside an image of its name.

    Args:
        path: The file.
        stems: Paths of the images, with and without endings, in lower case.

    Returns:
        True if so.
    """
    return stem_of(path).casefold() in stems


def stems_of(images: Iterable[str]) -> frozenset[str]:
    """Prepare the paths of images for `is_beside`.

    Args:
        images: The paths.

    Returns:
        The paths with and without endings, in lower case.
    """
    return frozenset(
        stem for path in images for stem in (path.casefold(), stem_of(path).casefold())
    )


def find_beside(files: Files, images: Sequence[str]) -> Beside:
    """Find the caption files of images.

    Args:
        files: The files of the data set.
        images: Paths of the images.

    Returns:
        For a.jpg: a.txt, a.caption or a.jpg.txt in the same folder, or else in a folder without
        images that has a file of the same name; or else a.json beside it.
    """
    texts: defaultdict[str, dict[str, str]] = defaultdict(dict)
    documents: dict[str, str] = {}
    for path in sorted(files.listing.sizes):
        ending = suffix_of(path)
        if ending in TEXTS:
            texts[stem_of(path)].setdefault(ending, path)
        elif ending == ".json":
            documents[stem_of(path).casefold()] = path
    lower = {stem.casefold(): stem for stem in texts}
    found, used = Beside(), set[str]()
    for image in images:
        stems = stem_of(image), image
        stem = next((stem for stem in stems if stem in texts), None) or next(
            (lower[stem.casefold()] for stem in stems if stem.casefold() in lower), ""
        )
        own = texts.get(stem)
        if own:
            found.files[image] = min(own.values(), key=lambda path: TEXTS.index(suffix_of(path)))
            used.update(own.values())
    spare = [path for by in texts.values() for path in by.values() if path not in used]
    _from_other_folders(found, spare, images, {path.rpartition("/")[0] for path in files.images})
    for image in images:
        document = documents.get(stem_of(image).casefold())
        if document and image not in found.files:
            found.files[image] = document
    doubled = len(used) - len({*found.files.values()} & used)
    if doubled:
        found.passed_over["second caption file of an image"] = doubled
    return found


def _from_other_folders(
    found: Beside, spare: Sequence[str], images: Sequence[str], image_folders: set[str]
) -> None:
    """Add text files of folders without images, as in images/a.jpg and captions/a.txt."""
    by_name: defaultdict[str, list[str]] = defaultdict(list)
    for path in spare:
        if path.rpartition("/")[0] not in image_folders:
            by_name[stem_of(path).rpartition("/")[2].casefold()].append(path)
    alone = [image for image in images if image not in found.files]
    same = Counter(stem_of(image).rpartition("/")[2].casefold() for image in alone)
    for image in alone:
        stem = stem_of(image)
        fitting = by_name.get(stem.rpartition("/")[2].casefold(), [])
        if len(fitting) > 1 or same[stem.rpartition("/")[2].casefold()] > 1:
            # The folders below images/ and captions/ must be the same.
            below = stem.partition("/")[2].casefold()
            fitting = [p for p in fitting if stem_of(p).partition("/")[2].casefold() == below]
        if len(fitting) == 1:
            found.files[image] = fitting[0]


def read_beside(files: Files, path: str, config: ImageFolderConfig) -> list[str]:
    """Read a caption file.

    Args:
        files: The files of the data set.
        path: The file.
        config: Settings: the encoding, and the key of a JSON document's caption.

    Returns:
        Its captions: one a line, or those of a JSON document under a known name.

    Raises:
        UserError: It cannot be read, or its encoding is another one.
    """
    text = decode_text(files.read(path), files.where(path), config.encoding)
    if suffix_of(path) != ".json":
        return re.split(r"\r\n|\n|\r", text)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if not isinstance(document, dict):
        return []
    by_name = {folded(key): key for key in document}
    wanted = CAPTIONS if config.caption_column is None else (folded(config.caption_column),)
    columns = [by_name[name] for name in wanted if name in by_name][:1]
    try:
        return texts_in(document, columns, files.where(path))
    except UserError:
        return []
