"""COCO's annotations and Karpathy's: which file has a split's captions, and what is in it."""

from __future__ import annotations

import json
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.files import read_file
from t2i.core.io.text import decode_text
from t2i.plugins.common.images.image_files import captions_of, open_archive, safe_name
from t2i.plugins.datasets.coco.config import CocoConfig
from t2i.plugins.datasets.coco.recognise import ARCHIVE, KARPATHY, OFFICIAL, listed

NAME = "coco"
YEARS = ("2014", "2017")
REMEDY = "'t2i fetch coco' gets it (of 2017: with --parts), or name another folder with --data-dir"
OTHER = {"train": "val", "val": "train"}
KARPATHY_SPLITS = {"train": ("train", "restval"), "val": ("val",)}
"""Splits of Karpathy's file that belong to a split. His test is used as val if he has no val."""


@dataclass
class Photograph:
    """An image as annotations describe it.

    Args:
        key: Its id.
        file: Its path, as the annotations name it, with "/".
        captions: Its captions.
    """

    key: str
    file: str
    captions: tuple[str, ...]


@dataclass
class Annotations:
    """The captions of one split.

    Args:
        where: The file, for messages.
        folder: Name of the folder or archive that holds the images, such as "val2017". "": each
            file's path has it.
        images: The images that have captions.
        left: Number of entries that are left out, by reason.
    """

    where: str
    folder: str
    images: list[Photograph]
    left: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Source:
    """A file of annotations: a path, or a member of an archive."""

    path: Path
    member: str = ""

    @property
    def where(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def document(self) -> Any:
        content = _unpacked(self.path, self.member) if self.member else _bytes(self.path)
        try:
            return json.loads(decode_text(content, self.where, setting="data.encoding"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.where} is not JSON ({str(error)[:80]}); {REMEDY}") from None


def read_annotations(root: Path, config: CocoConfig, split: str) -> Annotations:
    """Find and read the captions of a split.

    Args:
        root: Folder of the data set.
        config: Settings.
        split: "train" or "val".

    Returns:
        The captions.

    Raises:
        UserError: There are none, there are several files that may hold them, or the file is not
            in COCO's or Karpathy's format.
    """
    if config.annotations is not None:
        name = config.annotations.replace("{split}", split)
        path = root / safe_name(name, "data.annotations")
        if not path.is_file():
            raise UserError(f"data set '{NAME}': there is no {path}; correct data.annotations")
        return _read(_Source(path), f"{split}{config.year or ''}", split)
    files = listed(root)
    official = _official(files, split, config)
    if official:
        suffix, source = official
        return _read(source, f"{split}{suffix}", split)
    karpathy = [path for path in files if KARPATHY.fullmatch(path.name)]
    if len(karpathy) == 1 and config.year is None:
        return _read(_Source(karpathy[0]), "", split)
    if len(karpathy) > 1:
        names = " and ".join(path.name for path in karpathy)
        raise UserError(
            f"data set '{NAME}': {names} are there: set data.annotations to one of them"
        )
    raise UserError(f"data set '{NAME}': {_absent(root, files, split, config)}; {REMEDY}")


def _official(files: list[Path], split: str, config: CocoConfig) -> tuple[str, _Source] | None:
    """Return (year or what stands for it, file) of the captions as COCO names them."""
    found: dict[str, _Source] = {}
    for path in files:
        name, archive = OFFICIAL.fullmatch(path.name), ARCHIVE.fullmatch(path.name)
        if name and name[1] == split:
            found.setdefault(name[2], _Source(path))
        elif archive:
            member = f"annotations/captions_{split}{archive[1]}.json"
            found.setdefault(archive[1], _Source(path, member))
    if config.year is not None:
        found = {year: source for year, source in found.items() if year == str(config.year)}
    year = next((year for year in YEARS if year in found), None)
    if year is None and len(found) > 1:
        names = ", ".join(source.path.name for source in found.values())
        raise UserError(
            f"data set '{NAME}': several files may hold the captions of {split} ({names}); say "
            "which with data.annotations, or by its year with data.year"
        )
    return (year, found[year]) if year else next(iter(found.items()), None)


def _absent(root: Path, files: list[Path], split: str, config: CocoConfig) -> str:
    """Say that there are no captions, and what is there instead."""
    years = YEARS if config.year is None else (str(config.year),)
    names = " or ".join(f"captions_{split}{year}.json" for year in years)
    told = f"there is no {names} in {root / 'annotations'}"
    other = next(
        (p for p in files if (m := OFFICIAL.fullmatch(p.name)) and m[1] == OTHER[split]), None
    )
    if other is not None and config.year is None:
        return f"{told}, only {other.name}; set data.val_share=0.1 to split that one"
    boxes = next((p for p in files if p.name.startswith(("instances_", "person_keypoints_"))), None)
    if boxes is not None:
        return f"{told}; {boxes.name} has boxes, no captions"
    return told


def _bytes(path: Path) -> bytes:
    try:
        return read_file(path, "")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None


def _unpacked(archive: Path, file: str) -> bytes:
    """Read one file from a zip."""
    with open_archive(archive) as opened:
        try:
            return opened.read(file)
        except (KeyError, zipfile.BadZipFile, OSError, ValueError) as error:
            raise UserError(f"{archive}: cannot read {file} in it ({error}); {REMEDY}") from None


def _read(source: _Source, folder: str, split: str) -> Annotations:
    """Read a file in COCO's or Karpathy's format, whichever it is in."""
    document, where = source.document(), source.where
    left: Counter[str] = Counter()
    try:
        if _is_karpathy(document):
            return Annotations(where, "", list(_karpathy(document, where, split, left)), left)
        return Annotations(where, folder, list(_coco(document, where, left)), left)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{where} holds no captions as COCO writes them ({type(error).__name__}: {error})"
        ) from None


# --- COCO's format --------------------------------------------------------------------------------


def _coco(document: Any, where: str, left: Counter[str]) -> Iterator[Photograph]:
    """Yield the images that have captions, by id; those of test have none."""
    captions: defaultdict[int | str, list[tuple[Any, str]]] = defaultdict(list)
    for name in ("images", "annotations"):
        if not isinstance(document[name], list) or not all(
            isinstance(x, dict) for x in document[name]
        ):
            raise ValueError(f"'{name}' is no list of objects")
    notes = document["annotations"]
    if notes and not any("caption" in note for note in notes):
        raise UserError(f"{where} has no captions, only {', '.join(sorted(notes[0]))[:120]}")
    for note in notes:
        text = note.get("caption")
        if isinstance(text, str) and text.strip():
            captions[_id(note["image_id"])].append((_order(_id(note.get("id", 0))), text))
        else:
            left["caption without text (null, a number, empty)"] += 1
    files: dict[int | str, str] = {}
    for image in document["images"]:
        number, file = _id(image["id"]), safe_name(_file(image), where)
        if files.setdefault(number, file) != file:
            left["image with the id of another"] += 1
    left["image that is listed twice"] += (
        len(document["images"])
        - len(files)
        - sum(left[reason] for reason in ("image with the id of another",))
    )
    left["image without a caption"] += sum(number not in captions for number in files)
    left["caption of an image that is not listed"] += sum(
        len(texts) for number, texts in captions.items() if number not in files
    )
    for number in sorted(files, key=_order):
        if number in captions:
            texts = captions_of(text for _, text in sorted(captions[number]))
            yield Photograph(str(number), files[number], texts)


def _file(image: Mapping[str, Any]) -> str:
    """Return the name of an image's file; where it has none, the end of its URL."""
    url = image.get("coco_url")
    if "file_name" not in image and isinstance(url, str):
        return url.rpartition("/")[2]
    return str(image["file_name"])


def _id(value: Any) -> int | str:
    """Return an id; digits in quotes are the number that they are in."""
    if isinstance(value, str):
        return int(value) if value.isdecimal() and str(int(value)) == value else value
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise ValueError(f"an id is {str(value)[:40]}")
    return int(value)


def _order(number: int | str) -> tuple[bool, int, str]:
    """Return a key for sorting: numbers by size, then words."""
    return (True, 0, number) if isinstance(number, str) else (False, number, "")


# --- Karpathy's format ----------------------------------------------------------------------------


def _is_karpathy(document: Any) -> bool:
    """Tell whether a document lists images with their sentences and splits."""
    images = document.get("images") if isinstance(document, Mapping) else None
    return isinstance(images, list) and bool(images) and "sentences" in images[0]


def _karpathy(document: Any, where: str, split: str, left: Counter[str]) -> Iterator[Photograph]:
    """Yield the images of a split in the order of the file."""
    images = document["images"]
    counts = Counter(str(image["split"]) for image in images)
    wanted = KARPATHY_SPLITS[split]
    if split == "val" and "val" not in counts:
        wanted = ("test",)
    if not any(name in counts for name in wanted):
        told = ", ".join(f"{name} ({count})" for name, count in counts.items())
        raise UserError(f"{where}: no image is of split '{split}'; its splits: {told}")
    if "val" in counts:
        left["image of Karpathy's split 'test'"] += counts["test"]
    seen: set[str] = set()
    for image in images:
        if image["split"] not in wanted:
            continue
        key = str(image.get("cocoid", image["filename"]))
        texts = [sentence.get("raw") for sentence in image["sentences"]]
        captions = captions_of(text for text in texts if isinstance(text, str))
        left["caption without text (null, a number, empty)"] += len(texts) - len(captions)
        if not captions:
            left["image without a caption"] += 1
        elif key in seen:
            left["image that is listed twice"] += 1
        else:
            seen.add(key)
            yield Photograph(key, safe_name(_path(image), where), captions)


def _path(image: Mapping[str, Any]) -> str:
    parts: Iterable[str] = (image.get("filepath") or "", image["filename"])
    return "/".join(part for part in parts if part)
