"""Captions of images that another program made: a record, a table, or a line for each image."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from t2i.core.errors import UserError, nearest
from t2i.core.io.text import read_text
from t2i.core.models.samples import RECORDS as RECORDS

NAMES = ("file_name", "file", "image", "filename", "name", "path")
"""Columns that name an image, by preference."""
TEXTS = ("prompt", "text", "caption", "captions", "description")
"""Columns that hold its caption, by preference."""


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
        path: A .jsonl or .csv table with a column of file names and one of captions, a .json object
            from file names to captions, or a text file with a caption a line, in the order of the
            images.
        names: Names of the images, in order.

    Returns:
        A caption for each image.

    Raises:
        UserError: The file cannot be read, or lacks captions of some images.
    """
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".csv", ".tsv", ".json"):
        return _by_line(path, names)
    text = read_text(path, setting="the file's encoding")
    told = dict(_object(path, text) if suffix == ".json" else _table(path, text))
    by_base = {PurePosixPath(name).name: caption for name, caption in told.items()}
    found = [told.get(name) or by_base.get(PurePosixPath(name).name, "") for name in names]
    if lacking := [name for name, caption in zip(names, found, strict=True) if not caption]:
        raise UserError(
            f"--captions {path}: it has no caption for {len(lacking)} of {len(names)} images, such "
            f"as {lacking[0]}"
        )
    return found


def _by_line(path: Path, names: Sequence[str]) -> list[str]:
    """Read a caption a line; blank lines at the end do not count."""
    lines = [line.strip() for line in read_text(path).rstrip().split("\n")]
    if len(lines) != len(names):
        raise UserError(
            f"--captions {path}: {len(lines)} lines for {len(names)} images; write a caption a "
            "line, in the order of the file names, or a .csv with the columns file_name and text"
        )
    if "" in lines:
        raise UserError(f"--captions {path}: line {lines.index('') + 1} is empty; write a caption")
    return lines


def _object(path: Path, text: str) -> Iterator[tuple[str, str]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError(f"--captions {path}: not JSON") from None
    if not isinstance(document, dict):
        raise UserError(f"--captions {path}: an object from file names to captions is expected")
    for name, caption in document.items():
        yield name, _first(caption)


def _table(path: Path, text: str) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(_rows(path, text), 1):
        name = next((row[key] for key in NAMES if isinstance(row.get(key), str)), None)
        key = next((key for key in TEXTS if row.get(key)), None)
        if name is None or key is None:
            missing, wanted = ("file name", NAMES) if name is None else ("caption", TEXTS)
            raise UserError(
                f"--captions {path}, row {number}: no {missing}; its columns are "
                f"{', '.join(map(str, row))}{nearest('', wanted)}"
            )
        yield name, _first(row[key])


def _rows(path: Path, text: str) -> Iterator[Mapping[str, Any]]:
    if path.suffix.lower() != ".jsonl":
        tabs = path.suffix.lower() == ".tsv"
        yield from csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if tabs else ",")
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UserError(f"--captions {path}, line {number}: no JSON object")
        yield row


def _first(caption: Any) -> str:
    """Return a caption on one line; the first one of a list."""
    text = caption[0] if isinstance(caption, list) and caption else caption
    return " ".join(text.split()) if isinstance(text, str) else ""
