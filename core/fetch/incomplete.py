"""The bytes of a download that is not complete: NAME.part, and the version that they are of."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from t2i.core.errors import UserError
from t2i.core.fetch.web import CHUNK
from t2i.core.io.files import detach
from t2i.core.io.json_files import read_json, write_json


@dataclass(frozen=True)
class Remote:
    """A file to download.

    Args:
        url: Its address: http, https or file.
        size: Its size in bytes. None: unknown.
        checksum: "md5:..." or "sha256:...", the latter also with its first digits only. None:
            unknown.
    """

    url: str
    size: int | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Digests:
    """Size and hashes of a file.

    Args:
        size: Its size in bytes.
        sha256: Its SHA-256, in hexadecimal.
        md5: Its MD5, in hexadecimal. None: it was not computed.
    """

    size: int
    sha256: str
    md5: str | None

    def agree(self, checksum: str | None) -> bool | None:
        """Compare with a published checksum.

        Args:
            checksum: "md5:..." or "sha256:..." (see `Remote`), or None.

        Returns:
            Whether it agrees. None if there is no checksum.
        """
        if checksum is None:
            return None
        kind, _, digits = checksum.partition(":")
        return self.md5 == digits if kind == "md5" else self.sha256.startswith(digits)


class Hashes:
    """SHA-256 and size of the data so far, and MD5 if the checksum is one.

    Args:
        checksum: The published checksum (see `Remote`). None: there is none.
    """

    def __init__(self, checksum: str | None) -> None:
        self._md5 = (
            hashlib.md5(usedforsecurity=False) if checksum and checksum.startswith("md5:") else None
        )
        self._sha256, self.size = hashlib.sha256(), 0

    def update(self, data: bytes) -> None:
        """Add data.

        Args:
            data: The data.
        """
        self._sha256.update(data)
        if self._md5:
            self._md5.update(data)
        self.size += len(data)

    def read(self, file: IO[bytes]) -> None:
        """Add the rest of a file.

        Args:
            file: The file.
        """
        while data := file.read(CHUNK):
            self.update(data)

    def digests(self) -> Digests:
        """Return size and hashes of the data so far.

        Returns:
            They.
        """
        return Digests(
            self.size, self._sha256.hexdigest(), self._md5.hexdigest() if self._md5 else None
        )


def part_of(target: Path) -> Path:
    """Return where the bytes of a file are kept until it is complete.

    Args:
        target: Where the complete file goes.

    Returns:
        The path NAME.part beside it.
    """
    return target.with_name(target.name + ".part")


class Part:
    """NAME.part, open for appending, with the hashes of its bytes.

    Args:
        remote: The file to download.
        target: Where the complete file goes.

    Attributes:
        remote: The file to download.
        path: The file NAME.part.
        validator: The server's identifier of the version, as the header If-Range takes it: a strong
            ETag or the time of the last change. None: unknown, so the part cannot be continued.
    """

    def __init__(self, remote: Remote, target: Path) -> None:
        self.remote, self.path = remote, part_of(target)
        self._note = target.with_name(target.name + ".part.json")
        self.validator: str | None = None
        self._hashes = Hashes(remote.checksum)
        self._file: IO[bytes]

    @contextmanager
    def open(self) -> Iterator[None]:
        """Open the file inside the block, and write it to the disk at the end.

        Yields:
            Nothing.
        """
        detach(self.path)
        with open(self.path, "ab+") as self._file:
            self.validator = self._noted()
            self._file.seek(0)
            self._hashes.read(self._file)
            if self.size and self.validator is None:
                self.restart(None)
            yield
            self._file.flush()
            os.fsync(self._file.fileno())

    def _noted(self) -> str | None:
        try:
            note = read_json(self._note, "part")
        except UserError:
            return None
        known = isinstance(note, dict) and note.get("url") == self.remote.url
        return str(note["validator"]) if known and note.get("validator") else None

    @property
    def size(self) -> int:
        """Number of bytes that are here."""
        return self._hashes.size

    def restart(self, validator: str | None) -> None:
        """Drop the bytes so far.

        Args:
            validator: The version of those that follow. None: unknown.
        """
        self._file.truncate(0)
        self._hashes, self.validator = Hashes(self.remote.checksum), validator
        write_json(self._note, {"url": self.remote.url, "validator": validator})

    def write(self, data: bytes) -> None:
        """Append data.

        Args:
            data: The data.
        """
        self._file.write(data)
        self._hashes.update(data)

    def flush(self) -> None:
        """Hand the bytes so far to the system, so that the file can be read."""
        self._file.flush()

    def digests(self) -> Digests:
        """Return size and hashes of the bytes so far.

        Returns:
            They.
        """
        return self._hashes.digests()

    def discard(self) -> None:
        """Remove the file and the note of its version."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
