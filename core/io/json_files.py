"""JSON documents in files: atomic writes, and reads in bounded time and memory."""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.documents import parse_json, read_bytes
from t2i.core.io.files import check_regular, write_bytes


def write_json(path: Path, value: Any) -> None:
    """Write a JSON document, indented, atomically and durably.

    Args:
        path: The file. Its folder is created if it does not exist.
        value: The document. NaN and infinities are not allowed.
    """
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def finite(value: Any) -> Any:
    """Replace the numbers that JSON cannot hold.

    Args:
        value: A document: mappings, sequences, numbers, texts, None.

    Returns:
        The document, with None instead of NaN and infinities.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return value


def read_json(path: Path, what: str, *, finite: bool = False) -> Any:
    """Read a JSON document, in bounded time and memory (`documents.py`).

    Args:
        path: The file.
        what: What the file belongs to; error messages begin with it.
        finite: Whether a number that is not finite is an error, as in all that t2i writes.

    Returns:
        The parsed document, of any JSON type.

    Raises:
        UserError: The file cannot be read, is not JSON, or is too large.
    """
    try:
        check_regular(path, what)
        return parse_json(read_bytes(path), finite=finite)
    except OSError as error:
        raise UserError(f"{what}: cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{what}: {path} is not JSON ({str(error)[:80]}); restore the file or start anew"
        ) from None


def read_object(path: Path, what: str, *, finite: bool = False) -> dict[str, Any]:
    """Read a JSON document that must be an object.

    Args:
        path: The file.
        what: What the file belongs to; error messages begin with it.
        finite: Whether a number that is not finite is an error.

    Returns:
        The object.

    Raises:
        UserError: The file cannot be read, is not JSON, or holds something else.
    """
    document = read_json(path, what, finite=finite)
    if not isinstance(document, dict):
        raise UserError(
            f"{what}: {path} holds no JSON object, but {reprlib.repr(document)[:40]}; "
            "restore the file or start anew"
        )
    return document


def json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object that may be missing.

    Args:
        path: The file.

    Returns:
        The object. Empty if the file is missing, damaged, or holds something else.
    """
    try:
        return read_object(path, "")
    except UserError:
        return {}
