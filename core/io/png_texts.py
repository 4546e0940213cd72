"""PNG files without the long texts and colour profiles that some programs put into them.

Programs for generated images keep whole workflows in a file: megabytes of text that take a few
kilobytes. Pillow refuses such files, because a small file can claim to hold any amount of text.
None of it is needed for the pixels, so it is left out before Pillow reads the file.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LONGEST = 2**16
"""Longest text that is kept, in bytes in the file."""

UNPACKED = 2**20
"""Longest compressed text or profile that is kept, in bytes when it is unpacked; Pillow's limit."""

TOGETHER = 2**24
"""All texts that are kept, in bytes when they are unpacked."""

_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})

Chunk = tuple[bytes, int, int]
"""The type of a chunk, where its data begins in the file, and the data's length."""


def without_long_texts(source: Path | bytes | BinaryIO) -> Path | bytes | BinaryIO:
    """Leave the long texts of a PNG file out.

    Texts of usual length are kept, because Pillow reads an orientation from some of them.

    Args:
        source: An image file of any kind: its path, its content, or an open file.

    Returns:
        `source` itself, unless it is a PNG file with long texts; then the content without them.

    Raises:
        OSError: The file cannot be read.
    """
    if isinstance(source, Path):
        if not source.is_file():
            return source
        with open(source, "rb") as file:
            return _stripped(file) or source
    if isinstance(source, bytes):
        return _stripped(io.BytesIO(source)) or source
    position = source.tell()
    try:
        return _stripped(source) or source
    finally:
        source.seek(position)


def _stripped(file: BinaryIO) -> bytes | None:
    """Return a PNG file's content without its long texts; None if there is nothing to leave out."""
    start = file.tell()
    if file.read(len(SIGNATURE)) != SIGNATURE:
        return None
    length = file.seek(0, os.SEEK_END)
    file.seek(start + len(SIGNATURE))
    left_out, together = [], 0
    for kind, at, size in _chunks(file, length):
        if kind in _TEXTS:
            unpacked = _unpacked(file, kind, at, size)
            together += unpacked
            if size > LONGEST or unpacked > UNPACKED or together > TOGETHER:
                left_out.append((at - 8, at + size + 4))
                together -= unpacked
    if not left_out:
        return None
    file.seek(start)
    content = file.read()
    kept, position = [], start
    for begin, end in left_out:
        kept.append(content[position - start : begin - start])
        position = end
    return b"".join([*kept, content[position - start :]])


def _chunks(file: BinaryIO, length: int) -> Iterator[Chunk]:
    """Yield the chunks that are whole; the file's position may be changed in between."""
    at = file.tell()
    while at + 12 <= length:
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        if at + 12 + size > length:
            return
        yield kind, at + 8, size
        at += 12 + size


def _unpacked(file: BinaryIO, kind: bytes, at: int, size: int) -> int:
    """Return the length of a text when it is unpacked, or something above UNPACKED."""
    if size > LONGEST:
        return size
    file.seek(at)
    _, _, rest = file.read(size).partition(b"\0")
    if kind == b"tEXt":
        return size
    if kind == b"iTXt":
        if rest[:1] != b"\1":
            return size
        packed = rest[2:].split(b"\0", 2)[-1]
    else:
        packed = rest[1:]
    try:
        return len(zlib.decompressobj().decompress(packed, UNPACKED + 1))
    except zlib.error:  # Pillow says what is wrong with it
        return size
