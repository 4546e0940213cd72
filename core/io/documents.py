"""JSON that somebody else may have written: parsed in bounded time and memory, and checked."""

from __future__ import annotations

import json
import math
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from t2i.core.errors import UserError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

MOST_BYTES = 64 * 2**20
"""Size of the largest document that is read, in bytes."""

MOST_VALUES = 5_000_000
"""Number of values in a document: each takes a hundred bytes of memory."""

DEEPEST = 100
"""How deep objects and lists may be nested."""

MANY = 1000
"""From so many mistakes on, only their number is told: each takes a kilobyte to describe."""


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a whole file that must not be large.

    Args:
        path: The file.
        most: Largest size, in bytes.

    Returns:
        Its content.

    Raises:
        ValueError: It is larger.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it is larger than {most / 2**20:g} MiB")
    return data


def parse_json(data: bytes, *, finite: bool = False) -> Any:
    """Parse a JSON document.

    Args:
        data: The document in UTF-8, UTF-16 or UTF-32.
        finite: Whether NaN, infinities, and numbers that no float can hold are errors.

    Returns:
        The document, of any JSON type.

    Raises:
        ValueError: It is no JSON, or too deep, or has too many values.
        RecursionError: It is far too deep.
    """
    if sum(data.count(sign) for sign in (b",", b"[", b"{")) > MOST_VALUES:
        raise ValueError(f"more than {MOST_VALUES:,} values")
    document = json.loads(data)
    level = [document]
    for _ in range(DEEPEST):
        if finite and not all(map(is_finite, level)):
            raise ValueError("a number that is not finite")
        lists = (value for value in level if isinstance(value, list))
        objects = (value.values() for value in level if isinstance(value, dict))
        level = [*chain.from_iterable(lists), *chain.from_iterable(objects)]
        if not level:
            return document
    raise ValueError(f"nested more than {DEEPEST} deep")


def is_finite(value: object) -> bool:
    """Tell whether a value is no number, or one that a float can hold.

    Args:
        value: Any value.

    Returns:
        False for NaN, infinities, and whole numbers beyond the largest float.
    """
    try:
        return not isinstance(value, int | float) or math.isfinite(value)
    except OverflowError:
        return False


def checked(adapter: TypeAdapter[T], document: Any, where: str, remedy: str) -> T:
    """Check the types in a document.

    Args:
        adapter: What the document must be.
        document: The document.
        where: What the document is; the error begins with it.
        remedy: How to mend it; the error ends with it.

    Returns:
        The checked document.

    Raises:
        UserError: Something has another type. The error names the first such place.
    """
    from pydantic import ValidationError

    try:
        return adapter.validate_python(document)
    except ValidationError as error:
        raise UserError(f"{where}: {_mistake(error)}; {remedy}") from None


def _mistake(error: Any) -> str:
    """Describe the first mistake that pydantic found."""
    if error.error_count() > MANY:
        return f"{error.error_count():,} values are wrong"
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part)[:40] for part in first["loc"])[:120]
    unknown = first["type"] in ("unexpected_keyword_argument", "extra_forbidden")
    message = "unknown entry" if unknown else first["msg"].removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}"
    return f"'{place}': {message}" if place else message
