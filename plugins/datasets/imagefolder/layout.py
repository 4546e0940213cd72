"""What is in a folder of images: its images, captions and splits, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import Contents
from t2i.core.io.images import UNREAD_SUFFIXES
from t2i.plugins.common.images.image_files import Entry, Source, captions_of
from t2i.plugins.common.images.splits import by_hash, chosen, safe_share, split_in
from t2i.plugins.datasets.imagefolder.beside import Beside, find_beside, read_beside
from t2i.plugins.datasets.imagefolder.config import ImageFolderConfig
from t2i.plugins.datasets.imagefolder.files import Files, is_image, suffix_of
from t2i.plugins.datasets.imagefolder.finding import (
    KNOWN,
    Captions,
    Tables,
    find_tables,
    preference,
    seen,
)
from t2i.plugins.datasets.imagefolder.names import parts_of
from t2i.plugins.datasets.imagefolder.parquet import read_parquet

WANTED = (
    "wanted: a.txt beside a.jpg, or a table such as metadata.csv with the columns file_name and "
    "text; another table is named with --set data.table=FILE, and --set data.caption=TEXT gives "
    "all images one caption"
)


@dataclass(frozen=True)
class Plan:
    """How one split is read.

    Args:
        source: Where its images are.
        entries: Its images.
        contents: What was found, and what was left out.
    """

    source: Source
    entries: Sequence[Entry]
    contents: Contents


@dataclass
class _Place:
    """The images of a split's folder, or of the whole data set.

    `captions` and `splits` are by the image's path in the data set's folder, as `absent`.
    """

    folder: str
    captions: dict[str, list[str]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    absent: dict[str, list[str]] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


def inspect(root: Path, config: ImageFolderConfig, split: str) -> Plan:
    """Look at what is in a folder, and plan how a split of it is read.

    Args:
        root: The folder.
        config: Settings.
        split: "train" or "val".

    Returns:
        The plan. It has no entries if there is no image.

    Raises:
        UserError: No image has a caption, several tables or archives could be meant, or a table or
            caption file cannot be read.
    """
    files = Files.of(root, split)
    if not files.images:
        packed = [path for path in files.listing.sizes if suffix_of(path) == ".parquet"]
        if packed and (found := read_parquet(root, packed, config, split)):
            return Plan(*found)
    above, folders = _split_folders(files)
    place = _Place(folders.get(split, above))
    tables = _tables(files, config, place.folder, folders)
    images = [path for path in files.images if path.startswith(place.folder)]
    beside = _caption(files, config, place, tables, images)
    _count(files, place, tables, beside, folders)
    keys = [*place.captions, *place.absent]
    if keys and config.caption is None and not any(place.captions.values()):
        raise UserError(_no_caption(files, place, tables, len(keys)))
    entries = _entries(place, config)
    if files.archive and files.archives:
        place.found.append(f"split: archive {files.archive.name}")
    elif not folders:
        entries = _of_split(entries, place, tables, config, split)
    else:
        place.found.append(f"split: folder {place.folder}")
    place.found[:0] = [_about_images(files, place)]
    return Plan(files.source(place.folder), entries, _contents(place))


def _split_folders(files: Files) -> tuple[str, dict[str, str]]:
    """Return the folder with the folders of the splits, and these by split.

    A single folder around them, as archives have it, is entered. Without a held-back folder, the
    images of train/ are all.
    """
    above = ""
    while True:
        below = {
            path[len(above) :].partition("/")[0]
            for path in files.images
            if "/" in path[len(above) :]
        }
        named = chosen(sorted(below))
        if named:
            return above, {split: f"{above}{name}/" for split, name in named.items()}
        alone = next((name for name in sorted(below) if name == "train"), None)
        if alone:
            return f"{above}{alone}/", {}
        direct = any("/" not in path[len(above) :] for path in files.images)
        if len(below) != 1 or direct:
            return "", {}
        above += f"{below.pop()}/"


def _tables(
    files: Files, config: ImageFolderConfig, folder: str, folders: Mapping[str, str]
) -> Tables:
    """Return the tables in a split's folder, or else those outside all splits' folders."""
    inner = find_tables(files, config, lambda path: path.startswith(folder))
    if inner.used or not folder:
        return inner
    splits = tuple(folders.values()) or (folder,)
    outer = find_tables(files, config, lambda path: not path.startswith(splits))
    return Tables(outer.used, {**outer.notes, **inner.notes})


# --- captions -------------------------------------------------------------------------------------


def _caption(
    files: Files, config: ImageFolderConfig, place: _Place, tables: Tables, images: Sequence[str]
) -> Beside:
    """Fill in the captions of a place's images: those of tables, else of the files beside them."""
    for table in tables.used:
        _from_table(place, table)
    scopes = tuple(table.scope for table in tables.used)
    rest = [path for path in images if path not in place.captions]
    unnamed = [path for path in rest if scopes and path.startswith(scopes)]
    if unnamed:
        names = ", ".join(table.path for table in tables.used[:3])
        place.passed_over[f"image that {names} does not name"] = len(unnamed)
    rest = [path for path in rest if not (scopes and path.startswith(scopes))]
    beside = find_beside(files, rest)
    for path in rest:
        own = beside.files.get(path)
        place.captions[path] = [] if own is None else read_beside(files, own, config)
    if beside.files:
        kinds = Counter(suffix_of(path) for path in beside.files.values())
        apart = sorted(
            {
                text.rpartition("/")[0] or "."
                for image, text in beside.files.items()
                if text.rpartition("/")[0] != image.rpartition("/")[0]
            }
        )
        where = f"in {', '.join(apart[:3])}" if apart else "beside the images"
        place.found.append(f"captions: {_kinds(kinds)} files {where}, one caption a line")
    return beside


def _from_table(place: _Place, table: Captions) -> None:
    """Add what a table says of the images in a place."""
    place.found.append(f"captions: {table.about}")
    for path, texts in table.texts.items():
        if path.startswith(place.folder):
            place.captions.setdefault(path, []).extend(texts)
    place.splits |= table.splits
    base = table.path.rpartition("/")[0]
    for name, texts in table.absent.items():
        path = "/".join(parts_of(name)[0])
        # A table in a split's folder is about that split; one outside may name the folder.
        if base.startswith(place.folder.rstrip("/")):
            path = f"{base}/{path}" if base and not path.startswith(f"{base}/") else path
        if path.startswith(place.folder) and path not in place.captions:
            place.absent.setdefault(path, []).extend(texts)
    if table.absent:
        place.found.append(
            f"{len(table.absent)} names in {table.path} are those of no image, such as "
            f"'{next(iter(table.absent))[:80]}': they count as broken"
        )


def _entries(place: _Place, config: ImageFolderConfig) -> list[Entry]:
    """Return the images of a place in the order of their names."""
    spare = () if config.caption is None else (config.caption,)
    entries = {
        path[len(place.folder) :]: captions_of(texts) or spare
        for path, texts in {**place.absent, **place.captions}.items()
    }
    return [Entry(key, key, entries[key]) for key in sorted(entries)]


# --- splits ---------------------------------------------------------------------------------------


def _of_split(
    entries: Sequence[Entry],
    place: _Place,
    tables: Tables,
    config: ImageFolderConfig,
    split: str,
) -> list[Entry]:
    """Return the images of a split that no folder makes: a table does, or a hash of the names."""
    keys = [entry.key for entry in entries]
    told, by = dict(place.splits), "column 'split'"
    if not told:
        by = "a table for each"
        told = {
            path: word
            for table in tables.used
            if (word := split_in(PurePosixPath(table.path).stem))
            for path in table.texts
        }
    named = chosen(sorted(set(told.values())))
    if not named:
        sound = [entry.key for entry in entries if entry.captions]
        share_of_val = config.val_share
        if len(sound) > 1:  # each split gets an image that has a caption
            share_of_val = safe_share(sound, share_of_val)
        parts = by_hash(keys, share_of_val)
        if len(keys) == 1:
            place.found.append("split: one image alone serves as train and as val")
        elif keys:
            if place.splits:
                there = ", ".join(sorted({*place.splits.values()})[:3])
                place.found.append(f"column 'split' is not used: of train and val, it has {there}")
            share = f"{len(parts['val'])} of {len(keys)}"
            place.found.append(f"split: by a hash of the names, {share} for val")
        kept = set(parts[split])
        return [entry for entry in entries if entry.key in kept]
    place.found.append(f"split: {by} ('{named['train']}' and '{named['val']}')")
    words = {key: told.get(place.folder + key, "") for key in keys}
    for word, count in Counter(words.values()).items():
        if word not in named.values():
            of = f"of split '{word}'" if word else f"to which {by} gives no split"
            place.passed_over[f"image {of}"] = count
    return [entry for entry in entries if words[entry.key] == named[split]]


# --- what is said ---------------------------------------------------------------------------------


def _about_images(files: Files, place: _Place) -> str:
    """Say which images are read."""
    kinds = Counter(suffix_of(path) for path in place.captions)
    where = files.archive.name if files.archive else place.folder
    return f"images: {_kinds(kinds) or 'none'}{f' in {where}' if where else ''}"


def _kinds(kinds: Mapping[str, int]) -> str:
    """List endings with their numbers, the most frequent first."""
    ordered = Counter(kinds).most_common()
    return ", ".join(f"{count} {ending or 'without ending'}" for ending, count in ordered)


def _count(
    files: Files, place: _Place, tables: Tables, beside: Beside, folders: Mapping[str, str]
) -> None:
    """Count the files that are not used, by reason."""
    # What lies in another split's folder is that split's.
    others = tuple(f for f in folders.values() if f != place.folder)

    def mine(paths: Iterable[str]) -> list[str]:
        return [path for path in paths if not (others and path.startswith(others))]

    place.passed_over.update(files.listing.left[path] for path in mine(files.listing.left))
    place.passed_over.update(beside.passed_over)
    used = {*beside.files.values(), *(table.path for table in tables.used)}
    if files.archive:
        used.update((files.archive.name, *files.archives))
    outside: Counter[str] = Counter()
    for path in mine(files.listing.sizes):
        if path in place.captions or path in used:
            continue
        if not path.startswith(place.folder) and "/" in path:
            outside[path.partition("/")[0]] += is_image(path)
        elif path in tables.notes and preference(path) < len(KNOWN):
            place.passed_over[f"table that is not read: {path} ({tables.notes[path]})"] = 1
        elif not is_image(path):
            place.passed_over[_why_not(path, bool(tables.used))] += 1
    for folder, images in outside.items():
        if images:
            place.passed_over[f"image in {folder}/, which is no folder of a split"] = images


def _why_not(path: str, by_table: bool) -> str:
    """Say why a file is not used."""
    ending = suffix_of(path)
    if ending in UNREAD_SUFFIXES:
        return f"image of a kind that is not read ({ending})"
    if ending in (".txt", ".caption") and by_table:
        return f"text file that is not read, because a table has the captions ({ending})"
    if ending in (".txt", ".caption"):
        return f"text file without an image of its name ({ending})"
    return f"not an image file ({ending or 'without ending'})"


def _contents(place: _Place) -> Contents:
    return Contents(tuple(place.found), dict(place.passed_over.most_common()))


def _no_caption(files: Files, place: _Place, tables: Tables, count: int) -> str:
    """Say once that no image has a caption: what was seen, and what would be read."""
    others = Counter(
        suffix_of(path)
        for path in files.listing.sizes
        if not is_image(path) and path not in tables.notes
    )
    told = "; ".join(filter(None, [seen(tables.notes), _kinds(others)])) or "nothing but images"
    which = "the image" if count == 1 else f"the {count} images"
    return (
        f"{files.root / place.folder}: no caption for {which}; seen beside images: {told}; {WANTED}"
    )
