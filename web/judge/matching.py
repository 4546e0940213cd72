"""Which images of several folders belong together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from t2i.core.errors import UserError

TABLES = ("captions", "metadata", "prompts")
"""How the files in a folder begin that may hold captions for its images."""

ENDINGS = (".csv", ".tsv", ".jsonl", ".json", ".txt")


@dataclass(frozen=True)
class Wanted:
    """An item before its images are there.

    Args:
        caption: The caption. "": unknown.
        sample: Number of the image among those of its caption, from 0.
        files: Its image in each folder, by the folder's name.
    """

    caption: str
    sample: int
    files: Mapping[str, Path]


def match(folders: Mapping[str, Path]) -> list[Wanted]:
    """Match the images of several folders.

    They belong together by caption if every folder has captions (the k-th image of a caption in
    each), else by the name of the file without its ending.

    Args:
        folders: The folders by name.

    Returns:
        The items of which each folder has an image, in the order of the first folder.

    Raises:
        UserError: The folders have nothing in common, or captions or files cannot be read.
    """
    named = {name: _captioned(folder) for name, folder in folders.items()}
    if all(all(captions.values()) for captions in named.values()):
        matched = {name: _by_caption(captions) for name, captions in named.items()}
        told = {key: key[0] for own in matched.values() for key in own}
    else:
        matched = {name: _by_stem(captions) for name, captions in named.items()}
        told = {
            key: captions[file]
            for name, captions in named.items()
            for key, file in matched[name].items()
            if captions[file]
        }
    first = next(iter(matched.values()))
    keys = [key for key in first if all(key in own for own in matched.values())]
    if not keys:
        raise UserError(
            f"{' and '.join(map(str, folders.values()))} have no images in common: no file has "
            "the same name in each, and no caption has an image in each"
        )
    return [
        Wanted(told.get(key, ""), key[1],
               {name: folders[name] / matched[name][key] for name in folders})
        for key in keys
    ]  # fmt: skip


def _captioned(folder: Path) -> dict[str, str]:
    """Return the images of a folder by name, with their captions; "" where they are unknown."""
    from t2i.benchmarks.score.images.captions import read_captions
    from t2i.benchmarks.score.images.sources import FolderImages

    images = FolderImages(folder, recursive=False)
    names = images.names
    if images.told:
        return {name: " ".join(images.told.get(name, "").split()) for name in names}
    for beginning in TABLES:
        for ending in ENDINGS:
            table = folder / f"{beginning}{ending}"
            if table.is_file():
                return dict(zip(names, read_captions(table, names), strict=True))
    return dict.fromkeys(names, "")


def _by_caption(captions: Mapping[str, str]) -> dict[tuple[str, int], str]:
    """Key images by their caption and their number among those of it."""
    seen: Counter[str] = Counter()
    found = {}
    for file, caption in captions.items():
        found[caption, seen[caption]] = file
        seen[caption] += 1
    return found


def _by_stem(captions: Mapping[str, str]) -> dict[tuple[str, int], str]:
    """Key images by the name of their file without its ending."""
    return {(PurePosixPath(file).stem, 0): file for file in captions}
