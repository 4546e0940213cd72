"""Tables with the captions of images: csv, txt, jsonl and json files as rows of named columns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.columns import CAPTIONS, NAMES, folded
from t2i.core.io.images import SUFFIXES, UNREAD_SUFFIXES
from t2i.core.io.text import decode_text

ENDINGS = (".jsonl", ".csv", ".ndjson", ".tsv", ".txt", ".json")
"""Endings of files that may be tables of text, in lower case."""

DELIMITERS = ",\t;|"
NO_VALUE = frozenset({"nan", "null", "none", "n/a", "<na>"})
"""What programs write into a csv file where a table has no value, in lower case."""
SAMPLE = 50  # rows by which the delimiter is chosen
_NUMBERED = re.compile(r"^(.+?#\d+)[ \t]+(.*)$")
"""A line of Flickr8k's own files: NAME#0, a tab, the caption."""
_TIGHT = re.compile(r"^[^,\r\n]*(,[^,\r\n]*)+,(?=\S)", re.M)
"""A line with a comma, after the first, that no space follows: it is between columns."""
_SPACED = re.compile(r"^(\S+\.\w{3,4})[: ] *(.+)$")
"""A line of a name, a space or a colon, and the caption."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        place: Where it is in its file, such as "line 3", for errors.
        values: Its values by column.
    """

    place: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        path: The file, in the data set's folder.
        columns: Names of the columns; "1", "2", ... if the file does not name them.
        rows: The rows.
    """

    path: str
    columns: tuple[str, ...]
    rows: Sequence[Row]


def table_of(path: str, rows: Sequence[Row]) -> Table:
    """Make a table of rows.

    Args:
        path: The file, in the data set's folder.
        rows: The rows.

    Returns:
        The table. It has the columns of all rows.
    """
    columns = dict.fromkeys(column for row in rows for column in row.values)
    return Table(path, tuple(columns), rows)


def read_table(
    path: str,
    content: bytes,
    where: str,
    encoding: str | None = None,
    setting: str = "data.encoding",
) -> Table:
    """Read a table of text.

    Args:
        path: The file, in the data set's folder. Its ending says what it holds.
        content: Its content.
        where: Name of the file in errors.
        encoding: Name of its encoding. None: UTF-8, or what its byte order mark says.
        setting: As for `decode_text`.

    Returns:
        The table.

    Raises:
        UserError: It is no table, or damaged. The error names the line.
    """
    ending = PurePosixPath(path).suffix.lower()
    text = decode_text(content, where, encoding, setting)
    if ending == ".json":
        rows = _json(text, where)
    elif ending in (".jsonl", ".ndjson"):
        rows = list(_lines(text, where))
    else:
        rows = _numbered(text) or list(_delimited(text, where))
    return table_of(path, rows)


# --- json -----------------------------------------------------------------------------------------


def _lines(text: str, where: str) -> Iterator[Row]:
    """Read one JSON object a line."""
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_nothing)
        except (ValueError, RecursionError):
            raise UserError(f"{where}, line {number}: not JSON") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}, line {number}: not an object with file_name and text")
        yield Row(f"line {number}", row)


def _nothing(constant: str) -> None:
    """Return None for NaN, which programs write where a table has no value."""


def _json(text: str, where: str) -> list[Row]:
    """Read a JSON document that holds rows, or one object a line."""
    try:
        document = json.loads(text, parse_constant=_nothing)
    except (ValueError, RecursionError) as error:
        if str(error).startswith("Extra data"):
            return list(_lines(text, where))
        raise UserError(f"{where}: not JSON ({str(error)[:80]})") from None
    found = _records(document)
    if found is None:
        raise UserError(
            f"{where}: no table: a list of objects, or an object with a caption for each image, is "
            "expected"
        )
    return [Row(f"entry {number}", values) for number, values in enumerate(found, start=1)]


def _records(document: Any) -> list[Mapping[str, Any]] | None:
    """Return the rows in a JSON document; None if it holds none."""
    if isinstance(document, list):
        return document if document and all(isinstance(row, dict) for row in document) else None
    if not isinstance(document, dict) or not document:
        return None
    if joined := _joined(document):
        return joined
    known = {folded(key) for key in document}
    if known & set(NAMES) and known & set(CAPTIONS):
        return _turned(document)
    lists = [rows for value in document.values() if (rows := _rows_within(value))]
    if len(lists) == 1:
        return lists[0]
    if all(isinstance(value, str | list | None) for value in document.values()):
        return [{"image": name, "caption": value} for name, value in document.items()]
    if all(isinstance(value, dict) for value in document.values()):
        return [{"image": name, **value} for name, value in document.items()]
    return None


def _rows_within(value: Any) -> list[Mapping[str, Any]] | None:
    """Return a value that is a list of objects."""
    rows = isinstance(value, list) and value and all(isinstance(row, dict) for row in value)
    return value if rows else None


def _turned(document: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """Return the rows of a document of columns; of one object, that row."""
    columns = {
        key: list(value.values()) if isinstance(value, dict) else value
        for key, value in document.items()
    }
    if not all(isinstance(column, list) for column in columns.values()):
        return [document]
    if len({len(column) for column in columns.values()}) != 1:
        return None
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _joined(document: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """Return the annotations of a document in COCO's manner, each with its image's name."""
    images, notes = (_rows_within(document.get(key)) for key in ("images", "annotations"))
    if not images or not notes:
        return None
    files = {str(image.get("id")): image.get("file_name") for image in images}
    return [
        {"file_name": files[number], "caption": note.get("caption")}
        for note in notes
        if (number := str(note.get("image_id"))) in files
    ]


# --- columns with delimiters ----------------------------------------------------------------------


def _numbered(text: str) -> list[Row]:
    """Read lines of a name, perhaps with a number, and a caption; none if the lines are others."""
    lines = [(n, line) for n, line in enumerate(split_lines(text), start=1) if line.strip()]
    for pattern in (_NUMBERED, _SPACED):
        found = [(number, pattern.match(line)) for number, line in lines]
        if found and all(match and is_image_name(match[1]) for _, match in found):
            return [
                Row(f"line {number}", {"1": match[1].strip(), "2": match[2].strip()})
                for number, match in found
                if match
            ]
    return []


def split_lines(text: str) -> list[str]:
    """Split a text at line ends only, not at the other characters of `str.splitlines`.

    Args:
        text: The text.

    Returns:
        Its lines.
    """
    return re.split(r"\r\n|\n|\r", text)


def is_image_name(text: str) -> bool:
    """Tell whether a text looks like the name of an image file.

    Args:
        text: The text. A number after "#" is no part of the name.

    Returns:
        True if its ending is one of an image.
    """
    suffix = PurePosixPath(text.strip().partition("#")[0].replace("\\", "/")).suffix.lower()
    return suffix in SUFFIXES or suffix in UNREAD_SUFFIXES


def _delimited(text: str, where: str) -> Iterator[Row]:
    """Read a csv file, whatever its delimiter is."""
    first, _, rest = text.partition("\n")
    told = re.fullmatch(r"sep=(.)\s*", first)  # a spreadsheet's own line
    skipped = 1 if told else 0
    text = rest if told else text
    text = text.replace('\\"', '""')  # how databases write quotes inside a quoted value
    delimiter = told[1] if told else _delimiter(text, where)
    rows = _records_of(text, delimiter, csv.QUOTE_MINIMAL, where)
    if swallowed := _swallowed(rows, delimiter):
        if delimiter not in "\t|":
            raise UserError(
                f"{where}, row {swallowed + skipped}: a quotation mark is not closed; write quotes "
                "inside a caption twice"
            )
        rows = _records_of(text, delimiter, csv.QUOTE_NONE, where)
    rows = [(number + skipped, row) for number, row in rows if any(cell.strip() for cell in row)]
    if not rows:
        return
    headless = any(map(is_image_name, rows[0][1]))
    if headless:
        commas_are_text = delimiter == "," and '"' not in text and not re.search(_TIGHT, text)
        width = 2 if commas_are_text else max(2, min(len(row) for _, row in rows))
        columns = [str(number) for number in range(1, width + 1)]
    else:
        columns = _distinct([cell.strip() for cell in rows.pop(0)[1]])
    for number, row in rows:
        yield Row(f"row {number}", _cells(columns, row, delimiter, f"{where}, row {number}"))


def _records_of(text: str, delimiter: str, quoting: Any, where: str) -> list[tuple[int, list[str]]]:
    """Return the rows with their numbers, from 1."""
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, quoting=quoting
    )
    try:
        return list(enumerate(reader, start=1))
    except csv.Error as error:
        raise UserError(f"{where}, line {reader.line_num}: no csv ({error})") from None


def _delimiter(text: str, where: str) -> str:
    """Choose the delimiter: the one whose header has known columns and whose rows fit best."""
    head = "\n".join(split_lines(text)[: 4 * SAMPLE])
    best, found = (0, 0, 0.0), ""
    for delimiter in DELIMITERS:
        rows = [row for _, row in _records_of(head, delimiter, csv.QUOTE_MINIMAL, where)[:SAMPLE]]
        rows = [row for row in rows if row]
        if not rows or len(rows[0]) < 2:
            continue
        header = {folded(cell) for cell in rows[0]}
        named = any(map(is_image_name, rows[0]))
        known = bool(header & set(NAMES)) + bool(header & set(CAPTIONS))
        even = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
        score = (known, int(named), even)
        if score > best:
            best, found = score, delimiter
    if not found:
        raise UserError(f"{where}: no table: it has no columns with , ; | or tab between them")
    return found


def _swallowed(rows: Iterable[tuple[int, list[str]]], delimiter: str) -> int:
    """Return the number of a row with other rows inside a quoted value; 0 if there is none."""
    for number, row in rows:
        for cell in row:
            for line in cell.split("\n")[1:]:
                name, found, _ = line.partition(delimiter)
                if found and is_image_name(name):
                    return number
    return 0


def _distinct(columns: Sequence[str]) -> list[str]:
    """Number columns of one name: caption, caption_2, ..."""
    seen: dict[str, int] = {}
    distinct = []
    for name in columns:
        seen[name] = seen.get(name, 0) + 1
        distinct.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return distinct


def _cells(columns: Sequence[str], row: list[str], delimiter: str, where: str) -> dict[str, str]:
    """Return the values of a row by column; delimiters in an unquoted last value are part of it."""
    extra = len(row) - len(columns)
    if extra > 0 and not any(cell.strip() for cell in row[len(columns) :]):
        row = row[: len(columns)]  # a spreadsheet's empty columns
    elif extra > 0:
        if folded(columns[-1]) not in CAPTIONS and columns[-1] != str(len(columns)):
            raise UserError(
                f"{where}: {len(row)} values, but {len(columns)} columns; quote values that hold "
                f"{delimiter!r}"
            )
        # csv drops the space after a delimiter
        row = [*row[: len(columns) - 1], f"{delimiter} ".join(row[len(columns) - 1 :])]
    values = ("" if cell.strip().casefold() in NO_VALUE else cell for cell in row)
    return dict(zip(columns, values, strict=False))
