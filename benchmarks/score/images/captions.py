"""Captions of images that another program made: a record, a table, or a line for each image."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.columns import NAMES, caption_columns, folded, listed, texts_in
from t2i.core.io.files import read_file
from t2i.core.io.tables import ENDINGS, Table, is_image_name, read_table, split_lines
from t2i.core.io.text import decode_text, read_text
from t2i.core.models.sample_folder import RECORDS as RECORDS


def recorded(path: Path) -> dict[str, str]:
    """Read the record that `t2i sample` writes beside its images.

    Args:
        path: The file samples.jsonl.

    Returns:
        The caption of each image by the name of its file; empty if there is no such file, or if it
        is something else.
    """
    if not path.is_file():
        return {}
    found = {}
    for line in read_text(path).split("\n"):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):  # a line that a killed command left half-written
            continue
        if isinstance(row, dict) and isinstance(row.get("file"), str):
            found[row["file"]] = str(row.get("prompt", ""))
    return found


def read_captions(path: Path, names: Sequence[str]) -> list[str]:
    """Read a caption for each image from a file.

    Args:
        path: A table with a column of file names and one of captions (`core.io.tables`), or a text
            file with a caption a line, in the order of the images.
        names: Names of the images, in order.

    Returns:
        A caption for each image; the first one, where an image has several.

    Raises:
        UserError: The file cannot be read, or lacks captions of some images.
    """
    where = f"--captions {path}"
    try:
        data = read_file(path, "--captions")
    except OSError as error:
        raise UserError(f"{where}: {error.strerror or error}") from None
    text = decode_text(data, where, setting="")
    if path.suffix.lower() in ENDINGS and (table := _table(path, data, where)):
        return _of_table(table, names, where)
    return _by_line(text, names, where)


def _table(path: Path, data: bytes, where: str) -> Table | None:
    """Read a table. A text file is one only where its lines name images."""
    if path.suffix.lower() != ".txt":
        return read_table(path.name, data, where, setting="")
    try:
        table = read_table(path.name, data, where, setting="")
    except UserError:
        return None
    return table if any(map(is_image_name, _values(table, table.columns[0]))) else None


def _by_line(text: str, names: Sequence[str], where: str) -> list[str]:
    """Read a caption a line; blank lines at the end do not count."""
    lines = [line.strip() for line in split_lines(text.rstrip())]
    if len(lines) != len(names):
        raise UserError(
            f"{where}: {len(lines)} lines for {len(names)} images; write a caption a "
            "line, in the order of the file names, or a .csv with the columns file_name and text"
        )
    if "" in lines:
        raise UserError(f"{where}: line {lines.index('') + 1} is empty; write a caption")
    return lines


def _of_table(table: Table, names: Sequence[str], where: str) -> list[str]:
    """Look up a caption for each image."""
    column = _name_column(table, names, where)
    texts = caption_columns(table.columns, [row.values for row in table.rows], column)
    if not texts:
        raise UserError(
            f"{where}: no column of captions, such as text or caption; its columns are "
            f"{listed(table.columns)}"
        )
    told: dict[str, str] = {}
    for row in table.rows:
        name, caption = _of_row(row.values, column, texts, f"{where}, {row.place}")
        if caption:
            told.setdefault(name, caption)
    captions = _looked_up(told, names)
    if lacking := [name for name, text in zip(names, captions, strict=True) if not text]:
        raise UserError(
            f"{where}: it has no caption for {len(lacking)} of {len(names)} images, such as "
            f"{lacking[0]}"
        )
    return captions


def _of_row(
    row: Mapping[str, Any], column: str, texts: Sequence[str], where: str
) -> tuple[str, str]:
    """Return the name and the caption in a row. Lines of JSON may each have other keys."""
    known = {folded(key): key for key in reversed([*row])}
    own = column if column in row else next((known[k] for k in NAMES if k in known), column)
    there = texts if any(row.get(key) for key in texts) else caption_columns([*row], [row], own)
    found = [" ".join(text.split()) for text in texts_in(row, there, where)]
    return _plain(str(row.get(own, ""))), next(filter(None, found), "")


def _looked_up(told: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """Find the caption of each image: by its path, by its file's name, or by that without ending.

    "" where there is none, or where the shorter name may mean several.
    """
    found = [told.get(name, "") for name in names]
    for shorten in (_last_part, _stem):
        counts = Counter(map(shorten, told)), Counter(map(shorten, names))
        short = {shorten(name): text for name, text in told.items()}
        for row, key in enumerate(map(shorten, names)):
            if not found[row] and all(count[key] == 1 for count in counts):
                found[row] = short[key]
    return found


def _last_part(name: str) -> str:
    return PurePosixPath(name).name


def _stem(name: str) -> str:
    """Return the last part without the ending of an image."""
    return PurePosixPath(name).stem if is_image_name(name) else PurePosixPath(name).name


def _name_column(table: Table, names: Sequence[str], where: str) -> str:
    """Choose the column that names most of the images; of equal ones, the best known."""
    stems = set(map(_stem, names))

    def fit(column: str) -> tuple[int, int]:
        found = sum(_stem(value) in stems for value in _values(table, column))
        return found, -NAMES.index(folded(column)) if folded(column) in NAMES else -len(NAMES)

    best = max(table.columns, key=fit, default="")
    if best and (fit(best)[0] or folded(best) in NAMES):
        return best
    raise UserError(
        f"{where}: no column names the images, such as file_name; its columns are "
        f"{listed(table.columns)}"
    )


def _values(table: Table, column: str) -> list[str]:
    return [_plain(str(row.values.get(column, ""))) for row in table.rows]


def _plain(name: str) -> str:
    """Return a name with "/" between its parts, and without the number of its caption."""
    return re.sub(r"#\d+$", "", name.strip().replace("\\", "/").removeprefix("./"))
