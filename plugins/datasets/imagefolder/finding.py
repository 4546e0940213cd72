"""Which files of a data set are tables of captions, and what they say of which image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from t2i.core.errors import UserError
from t2i.core.io.columns import (
    NAMES,
    caption_columns,
    find_column,
    folded,
    listed,
    texts_in,
    unused,
)
from t2i.core.io.tables import ENDINGS as OF_TEXT
from t2i.core.io.tables import Row, Table, read_table, table_of
from t2i.plugins.common.images.image_files import safe_name
from t2i.plugins.common.images.splits import split_word
from t2i.plugins.datasets.imagefolder.beside import is_beside, stems_of
from t2i.plugins.datasets.imagefolder.config import ImageFolderConfig
from t2i.plugins.datasets.imagefolder.files import Files, suffix_of
from t2i.plugins.datasets.imagefolder.names import Matches, match_names, parts_of
from t2i.plugins.datasets.imagefolder.parquet import rows_of

PARQUET = ".parquet"
ENDINGS = (*OF_TEXT, PARQUET)
"""Endings of files that may be tables, in lower case; the first before the second."""

KNOWN = ("metadata", "captions", "caption")
"""Names of tables that are preferred to others, the first before the second."""

MOST = 32
"""Number of text files in one folder above which they are captions that lost their images."""


@dataclass(frozen=True)
class Captions:
    """What one table says.

    Args:
        path: The file, in the data set's folder.
        about: How it is read, in words.
        texts: Captions of each image that it names, by the image's path.
        splits: The split of images, if it has a column of that name.
        absent: Captions of the names that are those of no image.
        scope: Folder that the table is about, "" or ending with "/".
    """

    path: str
    about: str
    texts: Mapping[str, list[str]]
    splits: Mapping[str, str]
    absent: Mapping[str, list[str]]
    scope: str


@dataclass
class Tables:
    """The tables of a data set.

    Args:
        used: Those that are read.
        notes: Why others are not, by path.
    """

    used: list[Captions] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)


def find_tables(
    files: Files, config: ImageFolderConfig, looked_at: Callable[[str], bool]
) -> Tables:
    """Find and read the tables of a data set or of one of its splits.

    Args:
        files: The files of the data set.
        config: Settings.
        looked_at: Tells whether a file is to be looked at, by its path.

    Returns:
        The tables. One in a folder around another is the only one.

    Raises:
        UserError: Several tables name images and none is preferred, or a table is damaged that the
            settings name or whose name is "metadata".
    """
    found = Tables()
    by_folder: defaultdict[str, list[str]] = defaultdict(list)
    for path in _candidates(files, config):
        if looked_at(path):
            by_folder[path.rpartition("/")[0]].append(path)
    scopes: list[str] = []
    for place in sorted(by_folder, key=lambda name: (name.count("/") + bool(name), name)):
        within = f"{place}/" if place else ""
        if any(within.startswith(scope) for scope in scopes):
            found.notes |= dict.fromkeys(by_folder[place], "in a folder of another table")
            continue
        for captions in _read_folder(files, config, by_folder[place], found.notes):
            found.used.append(captions)
            scopes.append(captions.scope if captions.scope.startswith(within) else within)
    return found


def _candidates(files: Files, config: ImageFolderConfig) -> list[str]:
    """Return the files that may be tables."""
    paths = sorted(path for path in files.listing.sizes if suffix_of(path) in ENDINGS)
    if config.table is not None:
        wanted = config.table.replace("\\", "/").removeprefix("./")
        named = [path for path in paths if path == wanted or path.endswith(f"/{wanted}")]
        if not named:
            raise UserError(
                f"{files.root}: there is no table '{config.table}' (data.table); tables are "
                f"{listed(p for p in paths if not is_beside(p, stems_of(files.images)))}"
            )
        return named
    stems = stems_of(files.images)
    alone = [path for path in paths if not is_beside(path, stems)]
    lost = defaultdict[str, list[str]](list)
    for path in alone:
        if suffix_of(path) in (".txt", ".json") and preference(path) == len(KNOWN):
            lost[path.rpartition("/")[0]].append(path)
    many = {path for group in lost.values() if len(group) > MOST for path in group}
    return [path for path in alone if path not in many]


def preference(path: str) -> int:
    """Return the place of a table's name among KNOWN, by which tables are preferred.

    Args:
        path: The file.

    Returns:
        The place; the length of KNOWN for other names.
    """
    stem = PurePosixPath(path).stem.lower()
    return KNOWN.index(stem) if stem in KNOWN else len(KNOWN)


def _read_folder(
    files: Files, config: ImageFolderConfig, paths: Iterable[str], notes: dict[str, str]
) -> list[Captions]:
    """Read the table of one folder, or one for each split; note why others are not read."""
    usable: list[Captions] = []
    ordered = sorted(paths, key=lambda p: (preference(p), ENDINGS.index(suffix_of(p)), p))
    for path in ordered:
        strict = config.table is not None or preference(path) == 0
        if usable and preference(usable[0].path) < len(KNOWN):
            notes[path] = f"{usable[0].path} has the captions"
            continue
        try:
            usable.append(_read(files, config, path))
        except _NoCaptionsError as error:
            if config.table is not None:
                raise UserError(f"{files.where(path)}: {error}") from None
            notes[path] = str(error)
        except UserError as error:
            if strict:
                raise
            notes[path] = str(error).removeprefix(files.where(path)).lstrip(":, ")
    if len(usable) < 2:
        return usable
    images = [image for table in usable for image in table.texts]
    if len(images) == len(set(images)):  # such as train.csv and test.csv
        return usable
    raise UserError(
        f"{files.root}: several tables name images: {listed(table.path for table in usable)}; say "
        f"which one is meant with --set data.table={PurePosixPath(usable[0].path).name}"
    )


class _NoCaptionsError(UserError):
    """A sound file that is no table of captions of these images."""


def _read(files: Files, config: ImageFolderConfig, path: str) -> Captions:
    """Read one table, and find out what its columns are."""
    where = files.where(path)
    table = _opened(files, config, path, where)
    rows = [row.values for row in table.rows]
    column, matches = _name_column(files, config, table, where)
    if config.caption_column is not None:
        texts = [find_column(table.columns, config.caption_column, "caption_column", where)]
    else:
        texts = caption_columns(table.columns, rows, column)
    only_names = config.caption is not None and preference(path) == 0
    if not texts and not only_names:
        raise _NoCaptionsError(
            f"no column of captions is known; columns: {listed(table.columns)}; say which with "
            "--set data.caption_column=NAME"
        )
    captions, absent, splits = _by_image(table, column, texts, matches, where)
    base = _folder_of(path)
    scope = base if any(image.startswith(base) for image in files.images) else ""
    about = _about(table, column, texts)
    return Captions(path, about, captions, splits, absent, scope)


def _opened(files: Files, config: ImageFolderConfig, path: str, where: str) -> Table:
    if suffix_of(path) == PARQUET:
        found = enumerate(rows_of(Path(where)), start=1)
        return table_of(path, [Row(f"row {number}", values) for number, values in found])
    return read_table(path, files.read(path), where, config.encoding)


def _folder_of(path: str) -> str:
    """Return the folder of a file, "" or ending with "/"."""
    folder = path.rpartition("/")[0]
    return f"{folder}/" if folder else ""


def _name_column(
    files: Files, config: ImageFolderConfig, table: Table, where: str
) -> tuple[str, Matches]:
    """Find the column that names images, and the images that its names mean."""
    if config.name_column is not None:
        column = find_column(table.columns, config.name_column, "name_column", where)
        matches = _matches(files, table, column)
        if matches.images or matches.unclear:
            return column, _checked(matches, column, where)
        raise UserError(_nothing_fits(files, table, column, where))
    known = {folded(column): column for column in reversed(table.columns)}
    first = [known[name] for name in NAMES if name in known]
    for column in first:
        matches = _matches(files, table, column)
        if matches.images or matches.unclear:
            return column, _checked(matches, column, where)
    fitting = []
    for column in (column for column in table.columns if column not in first):
        matches = _matches(files, table, column)
        if matches.images:
            fitting.append((column, matches))
    if len(fitting) == 1:
        return fitting[0][0], _checked(fitting[0][1], fitting[0][0], where)
    if fitting:
        raise _NoCaptionsError(
            f"several columns name images: {listed(column for column, _ in fitting)}; say which "
            "with --set data.name_column=NAME"
        )
    if first:
        raise _NoCaptionsError(
            _nothing_fits(files, table, first[0], where).removeprefix(f"{where}: ")
        )
    place = f"{where}, {table.rows[0].place}" if table.rows else where
    raise UserError(
        f"{place}: it has no file_name, and no other column names images; columns: "
        f"{listed(table.columns)}; say which with --set data.name_column=NAME"
    )


def _names(table: Table, column: str) -> list[str]:
    """Return the values of a column that may be names, each once."""
    values = (row.values.get(column) for row in table.rows)
    return list(
        dict.fromkeys(
            str(value)
            for value in values
            if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip()
        )
    )


def _matches(files: Files, table: Table, column: str) -> Matches:
    return match_names(_names(table, column), _folder_of(table.path), files.images, files.exists)


def _nothing_fits(files: Files, table: Table, column: str, where: str) -> str:
    """Say that the names in a column are those of no image."""
    names = _names(table, column)
    if not names:
        return f"{where}: column '{column}' is empty"
    there = f"one image is {files.images[0]}" if files.images else "there is no image"
    return (
        f"{where}: column '{column}' names no image that is there: '{names[0][:80]}' and "
        f"{len(names) - 1} others; {there}"
    )


def _checked(matches: Matches, column: str, where: str) -> Matches:
    """Return matches, unless a name fits several images."""
    for name, images in matches.unclear.items():
        raise UserError(
            f"{where}: '{name}' in column '{column}' may be {' or '.join(images)}: write its "
            "folder too"
        )
    return matches


def _by_image(
    table: Table, column: str, texts: Sequence[str], matches: Matches, where: str
) -> tuple[dict[str, list[str]], dict[str, list[str]], dict[str, str]]:
    """Return the captions of each image and of each absent name, and the images' splits."""
    captions: dict[str, list[str]] = {}
    absent: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    split = next((c for c in table.columns if folded(c) in ("split", "subset", "partition")), None)
    foreign = any(parts_of(name)[1] for name in matches.images)
    for row in table.rows:
        place, value = f"{where}, {row.place}", row.values.get(column)
        if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
            raise UserError(f"{place}: it has no {column}; each row names an image in the folder")
        found = texts_in(row.values, texts, place)
        image = matches.images.get(str(value))
        if image is None:
            if not foreign:
                safe_name(str(value), place)
            absent.setdefault(str(value), []).extend(found)
            continue
        captions.setdefault(image, []).extend(found)
        if split and (told := str(row.values.get(split) or "").strip()):
            splits[image] = split_word(told) or told
    return captions, absent, splits


def _about(table: Table, column: str, texts: Sequence[str]) -> str:
    """Say how a table is read."""
    captions = ", ".join(f"'{name}'" for name in texts)
    others = unused(table.columns, texts, column)
    more = f"; '{others[0]}' is not used (data.caption_column chooses)" if others else ""
    plural = "s" if len(texts) > 1 else ""
    return (
        f"column{plural} {captions} of {table.path}, images by '{column}', "
        f"{len(table.rows)} rows{more}"
    )


def seen(notes: Mapping[str, str]) -> str:
    """List tables that are not read, for an error.

    Args:
        notes: The reason by path.

    Returns:
        The first three; "" if there are none.
    """
    return "; ".join(f"{path} ({reason})" for path, reason in list(notes.items())[:3])
