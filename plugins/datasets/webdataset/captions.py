"""Captions in the members of a tar: texts in an encoding, and documents in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import BrokenExample
from t2i.core.io.text import decode_text
from t2i.plugins.common.images.image_files import captions_of

KEYS = (
    "caption", "captions", "text", "texts", "prompt", "title", "description", "alt_text", "alt",
    "sentence", "sentences",
)  # fmt: skip
"""Keys under which captions are found, in any case. The first that a document has is read."""

SHOWN = 12  # keys of a document that an error names


def of_text(content: bytes, where: str, encoding: str | None) -> tuple[str, ...]:
    """Read the caption in a text file.

    Args:
        content: The content of the file.
        where: Name of the example in errors.
        encoding: Name of its encoding. None: UTF-8.

    Returns:
        The caption, on one line; none if the file is empty.

    Raises:
        BrokenExample: It is in another encoding.
    """
    return captions_of([_decoded(content, where, encoding)])


def of_json(content: bytes, where: str, encoding: str | None, key: str | None) -> tuple[str, ...]:
    """Read the captions in a JSON document.

    Args:
        content: The document.
        where: Name of the example in errors.
        encoding: Name of its encoding. None: UTF-8.
        key: Key of the captions, as the settings name it. None: one of KEYS.

    Returns:
        The captions that are not empty.

    Raises:
        BrokenExample: It is no JSON, or has no such key. The error lists the keys that it has.
    """
    try:
        document = json.loads(_decoded(content, where, encoding))
    except (ValueError, RecursionError):
        raise BrokenExample(where, "no caption: its .json is not JSON") from None
    if not isinstance(document, dict):
        return captions_of(_texts(document))
    found = key_of(document, key)
    if found is None:
        names = _paths(document)
        keys = ", ".join(name[:60] for name in names[:SHOWN]) or "none"
        more = ", ..." if len(names) > SHOWN else ""
        raise BrokenExample(
            where,
            f"no caption: its .json has no {key or 'known key'}; its keys: {keys}{more}; "
            "name one with --set data.caption_key=KEY",
        )
    return captions_of(_texts(found[1]))


def found_key(content: bytes, encoding: str | None, key: str | None) -> str:
    """Return the key under which the captions of a JSON document are.

    Args:
        content: The document.
        encoding: As for `of_json`.
        key: As for `of_json`.

    Returns:
        The key; "" if there is none.
    """
    try:
        document = json.loads(_decoded(content, "", encoding))
    except (BrokenExample, ValueError, RecursionError):
        return ""
    found = key_of(document, key) if isinstance(document, dict) else None
    return found[0] if found else ""


def key_of(document: Mapping[str, Any], key: str | None) -> tuple[str, Any] | None:
    """Find the captions in a document.

    Args:
        document: The document.
        key: As for `of_json`.

    Returns:
        (key, value), or None if there is no such key.
    """
    if key is not None:
        return _at(document, key)
    names = {str(name).lower(): name for name in reversed(list(document))}
    return next(((names[k], document[names[k]]) for k in KEYS if k in names), None)


def _paths(document: Mapping[str, Any]) -> list[str]:
    """Return the keys of a document; those of a document within are "a.b"."""
    return [
        path
        for key, value in document.items()
        for path in (
            [f"{key}.{inner}" for inner in value] if isinstance(value, dict) else [str(key)]
        )
    ]


def _at(document: Any, key: str) -> tuple[str, Any] | None:
    """Find a key that may be a path, "a.b"."""
    if isinstance(document, dict) and key in document:
        return key, document[key]
    first, dot, rest = key.partition(".")
    if not dot or not isinstance(document, dict) or first not in document:
        return None
    found = _at(document[first], rest)
    return found and (key, found[1])


def _texts(value: Any) -> list[str]:
    """Return the texts among a value: itself, those of a list, or those of a list of documents."""
    if isinstance(value, dict):
        found = key_of(value, None) or ("raw", value.get("raw"))
        return [found[1]] if isinstance(found[1], str) else []
    if isinstance(value, list):
        return [text for item in value if not isinstance(item, list) for text in _texts(item)]
    return [value] if isinstance(value, str) else []


def _decoded(content: bytes, where: str, encoding: str | None) -> str:
    """Decode the content of a member; an example with text in another encoding is broken."""
    try:
        return decode_text(content, where, encoding)
    except UserError as error:
        raise BrokenExample(where, str(error).removeprefix(f"{where}: ")) from None
