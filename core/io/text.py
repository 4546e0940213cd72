"""Read text files that people bring. An encoding is recognised or refused, never guessed."""

from __future__ import annotations

import codecs
from pathlib import Path

from charset_normalizer import from_bytes

from t2i.core.errors import UserError

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by the byte order mark that begins a file. UTF-32's marks begin with UTF-16's."""

SHOWN = 40  # characters of a text that an error shows


def read_text(path: Path, encoding: str | None = None, setting: str = "data.encoding") -> str:
    """Read a text file.

    Args:
        path: The file.
        encoding: Name of its encoding, as Python knows it. None: UTF-8, or what its byte order
            mark says.
        setting: The setting that names the encoding, for the error.

    Returns:
        The text. Line ends stay as they are in the file.

    Raises:
        UserError: The file cannot be read, or its encoding is another one. The error names the
            encoding that it seems to have.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    return decode_text(data, str(path), encoding, setting)


def decode_text(
    data: bytes, where: str, encoding: str | None = None, setting: str = "data.encoding"
) -> str:
    """Decode the content of a text file.

    A byte order mark wins over `encoding`. Otherwise nothing but `encoding`, or UTF-8, is tried: a
    short text can be decoded by many encodings, and most of them give wrong letters without an
    error.

    Args:
        data: The content.
        where: Name of the file in errors.
        encoding: As for `read_text`.
        setting: As for `read_text`.

    Returns:
        The text, without a byte order mark.

    Raises:
        UserError: As `read_text`.
    """
    marked = next((name for mark, name in MARKS.items() if data.startswith(mark)), None)
    name = marked or encoding or "utf-8"
    try:
        return data.decode(name)
    except LookupError:
        raise UserError(
            f"{setting} = {encoding}: Python knows no such encoding; try utf-8, cp1252 or gbk"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: not {name.removesuffix('-sig').upper()} (byte {error.start})"
            f"{_advice(data, error.start, setting)}"
        ) from None


def _advice(data: bytes, wrong: int, setting: str) -> str:
    """Name the encoding that a text seems to have, with a piece of it, and the remedy."""
    best = from_bytes(data).best()
    if best is None or best.encoding == "utf_8":
        return f"; save it as UTF-8, or name its encoding with --set {setting}=NAME"
    start = max(0, wrong - SHOWN // 2)
    shown = " ".join(data[start : start + SHOWN].decode(best.encoding, "ignore").split())
    return (
        f"; it may be {best.encoding} ('{shown}'): if that reads well, set "
        f"--set {setting}={best.encoding}, else save it as UTF-8"
    )
