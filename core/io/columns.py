"""Which columns of a table name the images, and which hold their captions."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from t2i.core.errors import UserError

NAMES = (
    "file_name", "filename", "file", "image", "image_name", "image_file", "image_filename",
    "image_path", "images", "img", "img_name", "img_path", "img_file", "filepath", "file_path",
    "path", "picture", "photo", "name", "image_id", "id", "key", "url", "image_url",
)  # fmt: skip
"""Columns that may name images, in the order in which they are tried."""

CAPTIONS = (
    "text", "captions", "caption", "prompt", "prompts", "description", "descriptions", "title",
    "sentence", "sentences", "comment", "comments", "raw", "texts", "caption_text", "text_en",
)  # fmt: skip
"""Columns that may hold captions; the first that is there does."""

TOGETHER = ("text", "captions", "caption")
"""Columns that stand for each other in a table whose rows differ."""

_NO_CAPTION = frozenset(
    {"split", "set", "subset", "license", "licence", "source", "author", "url", "date", "width",
     "height", "md5", "sha256", "hash", "format", "mode", "size", "status"}
)  # fmt: skip
_COUNTED = re.compile(r"(text|caption|prompt|description|sentence|comment)s?_?\d+")
_MACHINE = re.compile(r"\S*[/\\]\S*|\S+\.\w{2,4}|[0-9a-f]{16,}|true|false", re.I)
"""Paths, URLs, file names and hashes."""
LOOKED_AT = 200  # values of a column by which it is judged


def folded(column: object) -> str:
    """Return the name of a column as it is compared.

    Args:
        column: The name as the file has it.

    Returns:
        In lower case, with "_" for spaces and hyphens.
    """
    return re.sub(r"[\s-]+", "_", str(column).strip().lower())


def find_column(columns: Sequence[str], wanted: str, setting: str, where: str) -> str:
    """Find the column that a setting names.

    Args:
        columns: The columns of the table.
        wanted: The value of the setting.
        setting: Name of the setting.
        where: Name of the table in errors.

    Returns:
        The column.

    Raises:
        UserError: There is no such column. The error lists those that there are.
    """
    found = [c for c in columns if c == wanted] or [
        c for c in columns if folded(c) == folded(wanted)
    ]
    if not found:
        raise UserError(
            f"{where}: it has no column '{wanted}' (data.{setting}); its columns: {listed(columns)}"
        )
    return found[0]


def listed(columns: Iterable[str]) -> str:
    """List the columns of a table for an error.

    Args:
        columns: Their names.

    Returns:
        The first twenty, with commas.
    """
    names = [str(column) or "''" for column in columns]
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "") if names else "none"


def caption_columns(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], name_column: str
) -> list[str]:
    """Find the columns that hold captions.

    Args:
        columns: The columns of the table.
        rows: Its rows.
        name_column: The column that names the images.

    Returns:
        The columns: several if they are numbered (caption_1, caption_2). None if no column has a
        known name, and not exactly one has texts.
    """
    others = [column for column in columns if column != name_column]
    by_name = {folded(column): column for column in reversed(others)}
    known = [by_name[name] for name in CAPTIONS if name in by_name]
    if known and folded(known[0]) in TOGETHER:
        known = [column for column in known if folded(column) in TOGETHER]
        counted = [c for c in others if _COUNTED.fullmatch(folded(c))]
        return known[:1] + counted if counted else known
    if known:
        counted = [c for c in others if _COUNTED.fullmatch(folded(c))]
        return known[:1] + counted
    counted = [column for column in others if _COUNTED.fullmatch(folded(column))]
    if counted:
        return counted
    texts = [column for column in others if _has_texts(column, rows)]
    return texts if len(texts) == 1 else []


def unused(columns: Sequence[str], used: Sequence[str], name_column: str) -> list[str]:
    """List other columns whose names say that they hold captions.

    Args:
        columns: The columns of the table.
        used: Those that are used as captions.
        name_column: The column that names the images.

    Returns:
        Their names.
    """
    return [c for c in columns if folded(c) in CAPTIONS and c not in used and c != name_column]


def _has_texts(column: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether most values of a column are texts for people."""
    if folded(column) in _NO_CAPTION:
        return False
    values = [row.get(column) for row in rows[:LOOKED_AT]]
    values = [value for value in values if value not in (None, "", [])]
    texts = [value for value in values if _is_text(value)]
    return len(texts) * 2 > len(values)


def _is_text(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, str) and _is_text(item) for item in value)
    return (
        isinstance(value, str)
        and any(letter.isalpha() for letter in value)
        and not _MACHINE.fullmatch(value)
    )


def texts_in(row: Mapping[str, Any], columns: Sequence[str], where: str) -> list[str]:
    """Return the captions in a row.

    Args:
        row: Its values by column.
        columns: The columns that hold captions. Of text, captions and caption, the first that has a
            value is taken; of others, all.
        where: Name of the row in errors.

    Returns:
        The texts; none if the row has no caption.

    Raises:
        UserError: A value is neither a text nor a list of texts.
    """
    together = [c for c in columns if folded(c) in TOGETHER and row.get(c) is not None]
    taken = [*together[:1], *(c for c in columns if folded(c) not in TOGETHER)]
    return [text for column in taken for text in _texts(row.get(column), f"{where}: {column}")]


def _texts(value: Any, where: str) -> list[str]:
    """Return the texts in one value."""
    if value is None or isinstance(value, int | float):  # a number is no caption
        return []
    if isinstance(value, str):
        return _within(value)
    if isinstance(value, list):
        if all(item is None or isinstance(item, str) for item in value):
            return [item for item in value if item is not None]
        if all(isinstance(item, dict) for item in value):
            found = [_of_object(item) for item in value]
            if all(text is not None for text in found):
                return [text for text in found if text is not None]
    raise UserError(f"{where} is neither a text nor a list of texts; null stands for no caption")


def _of_object(item: Mapping[str, Any]) -> str | None:
    """Return the text in an object such as {"raw": "a red bird", "tokens": [...]}."""
    by_name = {folded(key): value for key, value in item.items()}
    known = (by_name[name] for name in ("raw", *CAPTIONS) if name in by_name)
    return next((value for value in known if isinstance(value, str)), None)


def _within(text: str) -> list[str]:
    """Return the texts of a list that was written into a csv file; else the text itself."""
    if re.match(r"""\[\s*["']""", text.strip()) and text.strip().endswith("]"):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(text.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                return value
    return [text]
