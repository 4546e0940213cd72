"""Parquet files: tables of captions, and those of the hub, which hold the images too."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample, Contents
from t2i.core.io.columns import (
    CAPTIONS,
    caption_columns,
    find_column,
    folded,
    listed,
    texts_in,
)
from t2i.plugins.common.images.image_files import Entry, Source, captions_of
from t2i.plugins.common.images.splits import by_hash, chosen, split_in
from t2i.plugins.datasets.imagefolder.config import ImageFolderConfig

KEPT = 4  # row groups of images in memory


def opened(path: Path) -> Any:
    """Open a parquet file.

    Args:
        path: The file.

    Returns:
        pyarrow's ParquetFile.

    Raises:
        UserError: pyarrow is not installed, or the file cannot be read.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(
            f"{path}: reading parquet files needs pyarrow: pip install 't2i-zoo[parquet]'"
        ) from None
    try:
        return parquet.ParquetFile(path)
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: no sound parquet file ({reason}); get it again") from None


def rows_of(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Read the columns of a parquet file that hold no bytes.

    Args:
        path: The file.
        columns: Names of the columns. None: all that hold no bytes.

    Returns:
        The rows.

    Raises:
        UserError: As `opened`.
    """
    file = opened(path)
    wanted = [
        field.name for field in file.schema_arrow
        if not _holds_images(field.type) and (columns is None or field.name in columns)
    ]  # fmt: skip
    try:
        rows: list[dict[str, Any]] = file.read(columns=wanted).to_pylist()
    except (OSError, ValueError) as error:  # what pyarrow raises is one of these
        raise UserError(f"{path}: damaged ({' '.join(str(error).split())[:120]})") from None
    return rows


def _holds_images(kind: Any) -> bool:
    """Tell whether a column holds image files: bytes, or bytes beside a path."""
    from pyarrow import types

    if types.is_struct(kind):
        return any(_holds_images(kind.field(i).type) for i in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def image_column(path: Path) -> str | None:
    """Find the column of a parquet file that holds images.

    Args:
        path: The file.

    Returns:
        The first column of bytes; None if there is none.

    Raises:
        UserError: As `opened`.
    """
    return next(
        (field.name for field in opened(path).schema_arrow if _holds_images(field.type)), None
    )


class ParquetImages(Source):
    """Images in parquet files. A file in it is called PATH/ROW.

    Args:
        root: Folder of the data set.
        columns: The column of images, by the path of the parquet file.
        counts: Number of rows, by the path of the parquet file.
    """

    def __init__(self, root: Path, columns: Mapping[str, str], counts: Mapping[str, int]) -> None:
        self._root, self._columns, self._counts = root, columns, counts
        self._reset()

    def _reset(self) -> None:
        self._groups: dict[tuple[str, int], Any] = {}
        self._files: dict[str, Any] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_root", "_columns", "_counts")
        return {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._reset()

    def open(self, file: str) -> bytes:
        path, _, row = file.rpartition("/")
        try:
            with self._lock:
                value = self._value(path, int(row))
        except (UserError, OSError, ValueError) as error:
            away = not os.path.exists(self._root / path)
            reason = f"cannot be read ({str(error)[:80]})"
            raise BrokenExample(self.where(file), reason, away) from None
        content = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(content, bytes):
            raise BrokenExample(self.where(file), "no image")
        return content

    def _value(self, path: str, row: int) -> Any:
        """Read one value; the row groups that were read last are kept."""
        if path not in self._files:
            self._files[path] = opened(self._root / path)
        file = self._files[path]
        group = 0
        while row >= (size := file.metadata.row_group(group).num_rows):
            row, group = row - size, group + 1
        if (path, group) not in self._groups:
            while len(self._groups) >= KEPT:
                self._groups.pop(next(iter(self._groups)))
            column = self._columns[path]
            self._groups[path, group] = file.read_row_group(group, columns=[column]).column(0)
        return self._groups[path, group][row].as_py()

    def holder(self, file: str) -> Path:
        return self._root / file.rpartition("/")[0]

    def sizes(self) -> Mapping[str, int]:
        """Return, for each image, the size of the file that it is in."""
        return {
            name_of(path, row): size
            for path, count in self._counts.items()
            for size in [(self._root / path).stat().st_size]
            for row in range(count)
        }

    def where(self, file: str) -> str:
        return str(self._root / file)


def name_of(path: str, row: int) -> str:
    """Return the name of an image in a parquet file.

    Args:
        path: The parquet file.
        row: Number of the row, from 0.

    Returns:
        The name, PATH/ROW.
    """
    return f"{path}/{row:07d}"


def read_parquet(
    root: Path, paths: Iterable[str], config: ImageFolderConfig, split: str
) -> tuple[Source, list[Entry], Contents] | None:
    """Read the captions of images that lie in parquet files.

    Args:
        root: Folder of the data set.
        paths: The parquet files.
        config: Settings.
        split: "train" or "val". The files' names say which they hold; else a hash decides.

    Returns:
        Where the images are, the images, and what was found. None if no file holds images.

    Raises:
        UserError: A file cannot be read, or no column of captions is known.
    """
    columns = {path: column for path in sorted(paths) if (column := image_column(root / path))}
    if not columns:
        return None
    words = {path: split_in(PurePosixPath(path).stem) for path in columns}
    named = chosen(sorted({word for word in words.values() if word}))
    mine = {path: columns[path] for path in columns if not named or words[path] == named[split]}
    entries, counts, texts = [], {}, list[str]()
    for path in mine:
        rows = rows_of(root / path)
        texts = _caption_columns(root / path, rows, config)
        counts[path] = len(rows)
        entries += _entries(path, str(root / path), rows, texts, config)
    told = [
        f"captions: column {listed(texts)} of {len(mine)} parquet files",
        "images in parquet files are read faster with data.cache=true",
    ]
    others = Counter(
        f"parquet file of split '{word}'" if word else "parquet file of no split"
        for word in words.values()
        if named and word not in named.values()
    )
    if named:
        told.append(f"split: files called '{named[split]}'")
    else:
        parts = by_hash([entry.key for entry in entries], config.val_share)
        share = f"{len(parts['val'])} of {len(entries)}"
        told.append(f"split: by a hash of the names, {share} for val")
        kept = set(parts[split])
        entries = [entry for entry in entries if entry.key in kept]
    return ParquetImages(root, mine, counts), entries, Contents(tuple(told), dict(others))


def _entries(
    path: str,
    where: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    config: ImageFolderConfig,
) -> list[Entry]:
    """Return the images of one file, with their captions."""
    spare = () if config.caption is None else (config.caption,)
    entries = []
    for number, row in enumerate(rows):
        found = captions_of(texts_in(row, columns, f"{where}, row {number + 1}"))
        name = name_of(path, number)
        entries.append(Entry(name, name, found or spare))
    return entries


def _caption_columns(
    path: Path, rows: Sequence[Mapping[str, Any]], config: ImageFolderConfig
) -> list[str]:
    """Find the columns of captions; none if there are none and the settings give a caption."""
    columns = list(rows[0]) if rows else []
    if config.caption_column is not None:
        return [find_column(columns, config.caption_column, "caption_column", str(path))]
    texts = caption_columns(columns, rows, "")
    if not texts and rows and config.caption is None:
        raise UserError(
            f"{path}: no column of captions is known, such as {listed(CAPTIONS[:3])}; columns: "
            f"{listed(map(folded, columns))}; say which with --set data.caption_column=NAME"
        )
    return texts
