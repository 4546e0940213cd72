"""The members of a tar file, found by reading the headers alone.

It is safe for files from unknown sources: names are never used as paths, links are not followed,
and a number is rejected where the file's own size contradicts it. What is wrong with a member is
told with it. (Python's tarfile stops silently at a damaged header, and raises an error at a member
that is cut off.)

The formats are V7, ustar, pax and GNU tar.
Source: POSIX.1-2017, pax, "ustar Interchange Format".
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
LONGEST_NAME = 1 << 10
LARGEST_HEADER = 1 << 16  # largest pax header or long name that is read, in bytes

# Type flags of headers.
ANNOUNCING = b"xgLK"  # headers about the member that follows, or (g) about all members
FILE = b"\0" + b"07"
FOLDER = b"5"

SOUND, LINK, DEVICE, SPARSE, CUT, DAMAGED, ENDLESS = range(7)
"""What can be wrong with a member.

It is sound, a link, a device, a sparse file, cut off, or something that is no header. ENDLESS is
said once, after the last member, of a tar without the blocks of zeros that end it: it was cut off
between two members, or its writer was stopped.
"""


@dataclass(frozen=True)
class Member:
    """A member of a tar file.

    Args:
        name: Its name in the tar.
        offset: Position of its first byte in the tar. -1: it has no bytes.
        size: Size in bytes.
        problem: SOUND, or what is wrong with it.
    """

    name: str
    offset: int
    size: int
    problem: int = SOUND


class NoTar(Exception):
    """Raised for a file that does not begin as a tar does."""


@dataclass
class _Announced:
    """What extra headers say of the member that follows, beyond what its own header can hold."""

    name: str | None = None
    size: int | None = None
    sparse: bool = False

    def add(self, kind: bytes, content: bytes) -> None:
        """Read such a header: GNU's long name (L) or pax's records (x); other kinds are ignored."""
        if kind == b"L":
            self.name = _text(content.rstrip(b"\0"))
        elif kind == b"x":
            settings = _pax(content)
            self.name = settings.get("path", self.name)
            self.size = _number(settings.get("size"), self.size)
            self.sparse = self.sparse or any(key.startswith("GNU.sparse.") for key in settings)


def members(file: BinaryIO) -> Iterator[Member]:
    """Read the headers of a tar file.

    Args:
        file: The open file.

    Yields:
        All members but folders. If something that is not a header follows, or nothing where the end
        should be, the last one has no content and the problem DAMAGED or ENDLESS.

    Raises:
        NoTar: The file is empty, or does not begin with a header.
    """
    end = os.fstat(file.fileno()).st_size
    if end == 0:
        raise NoTar
    at, announced = 0, _Announced()
    while at < end:
        file.seek(at)
        header = file.read(BLOCK)
        if header == bytes(BLOCK):
            return
        declared = _declared(header)
        if declared is None and at == 0:
            raise NoTar
        kind, begin = header[156:157], at + BLOCK
        announces = kind in ANNOUNCING
        if declared is None or (announces and begin + declared > end):
            yield Member(f"byte-{at}", -1, 0, DAMAGED)
            return
        if announces:
            length = declared
            announced.add(kind, file.read(length) if length <= LARGEST_HEADER else b"")
        else:
            length = declared if announced.size is None else announced.size
            if kind != FOLDER:
                name = announced.name or _name(header)
                yield _member(
                    kind, name[-LONGEST_NAME:], range(begin, begin + length), end, announced.sparse
                )
            announced = _Announced()
        at = begin + _padded(length)
    yield Member("", -1, 0, ENDLESS)


def _member(kind: bytes, name: str, place: range, end: int, sparse: bool) -> Member:
    """Make the member that is declared to be at `place` in a file of `end` bytes."""
    if kind not in FILE:
        problem = SPARSE if kind == b"S" else LINK if kind in b"12" else DEVICE
        return Member(name, -1, 0, problem)
    problem = SPARSE if sparse else CUT if place.stop > end else SOUND
    return Member(name, place.start, min(place.stop - place.start, end), problem)


def _declared(header: bytes) -> int | None:
    """Return the size that a header declares; None if it is too short or its checksum is wrong."""
    if len(header) < BLOCK:
        return None
    checksum = _octal(header[148:156])
    if checksum != sum(header[:148]) + 8 * 32 + sum(header[156:]):
        return None
    field = header[124:136]
    if field[0] == 0x80:  # GNU's encoding of sizes of 8 GiB and more
        return int.from_bytes(field[1:], "big")
    return _octal(field)


def _octal(field: bytes) -> int | None:
    """Parse an octal number; None if it is malformed."""
    digits = field.strip(b" \0")
    return int(digits or b"0", 8) if all(0x30 <= digit < 0x38 for digit in digits) else None


def _name(header: bytes) -> str:
    """Return the name in a header, with ustar's prefix."""
    name, prefix = (
        _text(header[:100]),
        _text(header[345:500]) if header[257:263] == b"ustar\0" else "",
    )
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    """Decode a text that ends at the first null byte."""
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(content: bytes) -> dict[str, str]:
    """Return the records "LENGTH KEY=VALUE\\n" of a pax header, up to the first malformed one."""
    found, at = {}, 0
    while at < len(content):
        digits, space, _ = content[at : at + 10].partition(b" ")
        if not (space and digits.isdigit() and 0 < int(digits) <= len(content) - at):
            break
        key, _, value = content[at + len(digits) + 1 : at + int(digits) - 1].partition(b"=")
        found[_text(key)] = _text(value)
        at += int(digits)
    return found


def _number(text: str | None, otherwise: int | None) -> int | None:
    """Parse a decimal number of up to 18 digits; return `otherwise` if it is not one."""
    return (
        int(text)
        if text is not None and text.isascii() and text.isdigit() and len(text) < 19
        else otherwise
    )


def _padded(size: int) -> int:
    """Round a size up to whole blocks."""
    return -(-size // BLOCK) * BLOCK
