"""Read text files that people bring. An encoding is recognised or refused, never guessed."""

from __future__ import annotations

import codecs
import contextlib
from pathlib import Path

from charset_normalizer import from_bytes

from t2i.core.errors import UserError
from t2i.core.io.files import read_file

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by the byte order mark that begins a file. UTF-32's marks begin with UTF-16's."""

SAVE = "save it as UTF-8"
SHOWN = 40  # bytes of a text that an error shows
CHOICES = 3  # encodings that an error names
NEAR = 4096  # bytes around the first wrong one by which encodings are recognised

COMMON = frozenset(
    {"cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r",
     "gb18030", "big5", "cp932", "euc_jp", "cp949"}
)  # fmt: skip
"""Encodings that an error may name; a short text fits many others by chance."""


def read_text(path: Path, encoding: str | None = None, setting: str = "data.encoding") -> str:
    """Read a text file.

    Args:
        path: The file.
        encoding: Name of its encoding, as Python knows it. None: UTF-8, or what its byte order
            mark says.
        setting: The setting that names the encoding, for the error. "": there is none.

    Returns:
        The text. Line ends stay as they are in the file.

    Raises:
        UserError: The file cannot be read, or its encoding is another one. The error names the
            encoding that it seems to have.
    """
    try:
        data = read_file(path, "")
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
        text = data.decode(name)
    except LookupError:
        raise UserError(
            f"{setting} = {encoding}: Python knows no such encoding; try utf-8, cp1252 or gbk"
        ) from None
    except UnicodeDecodeError as error:
        if b"\0" in data:
            raise UserError(f"{where}: {_wide(data, name, setting)}") from None
        raise UserError(
            f"{where}: not {name.removesuffix('-sig').upper()} (byte {error.start})"
            f"{_advice(data, error.start, setting)}"
        ) from None
    if "\0" in text:
        raise UserError(f"{where}: {_wide(data, name, setting)}")
    return text


def _wide(data: bytes, name: str, setting: str) -> str:
    """Say that a text with zero bytes may be UTF-16."""
    wide = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
    return (
        f"no text in {name.removesuffix('-sig').upper()}, for it holds zero bytes; if it is "
        f"UTF-16, {f'set --set {setting}={wide}' if setting else SAVE}"
    )


def _advice(data: bytes, wrong: int, setting: str) -> str:
    """Name the encodings that a text may have, with a piece of it in each, and the remedy."""
    near = data[max(0, wrong - NEAR) : wrong + NEAR]
    ranked = ["cp1252", *(match.encoding for match in from_bytes(near))]
    start = max(0, wrong - SHOWN // 2)
    pieces: dict[str, str] = {}
    for name in dict.fromkeys(name for name in ranked if name in COMMON):
        with contextlib.suppress(UnicodeDecodeError):
            data.decode(name)
            piece = data[start : start + SHOWN].decode(name, "ignore")
            pieces.setdefault(" ".join(piece.split()), name)
    if not pieces:
        choice = f", or name its encoding with --set {setting}=NAME" if setting else ""
        return f"; {SAVE}{choice}"
    told = " or ".join(f"{name} ('{piece}')" for piece, name in [*pieces.items()][:CHOICES])
    choice = f"name the right one with --set {setting}=NAME, or " if setting else ""
    return f"; it may be {told}: {choice}{SAVE}"
