"""Read a run's log while it grows: each line is read once, however long the file is."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.files import check_regular

MOST = 16 * 2**20
"""Most bytes that one call reads, so that a log of gigabytes does not hold up the page."""

LONGEST = 2**20
"""Longest line, in bytes. A longer one is no line of a log, and is skipped."""


class GrowingLog:
    """A file of JSON lines that another process appends to.

    Args:
        path: The file, which need not exist yet.

    Attributes:
        bytes_read: Bytes read from the file so far, in all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read = 0
        self._forget()

    def _forget(self) -> None:
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._part = b""
        self._skips = False

    def read(self) -> tuple[bool, list[dict[str, Any]]]:
        """Read the lines that are new since the last call, at most MOST bytes of them.

        A line without its end is kept until the rest of it is there. Lines that are no JSON
        objects are skipped.

        Returns:
            Whether the file is another one than before (it was replaced, cut or removed, and what
            was read of it no longer counts), and the objects of the new lines.
        """
        try:
            check_regular(self.path, "log")  # opening a pipe would wait for ever
            with open(self.path, "rb") as file:
                found = os.fstat(file.fileno())
                same = (found.st_dev, found.st_ino)
                anew = self._file is not None and (
                    same != self._file or found.st_size < self._offset
                )
                if anew:
                    self._forget()
                self._file = same
                file.seek(self._offset)
                data = file.read(MOST)
        except (OSError, UserError):  # the run has vanished, or has not begun
            gone = self._file is not None
            self._forget()
            return gone, []
        self._offset += len(data)
        self.bytes_read += len(data)
        return anew, list(_objects(self._whole_lines(data)))

    def _whole_lines(self, data: bytes) -> list[bytes]:
        """Join what is new to the half line before it, and keep the half line at the end."""
        *lines, self._part = (self._part + data).split(b"\n")
        if self._skips and lines:
            del lines[0]
            self._skips = False
        if len(self._part) > LONGEST:
            self._part, self._skips = b"", True
        return lines


def _objects(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            yield found
