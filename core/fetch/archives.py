"""Unpack zip archives from untrusted sources, inside one folder and with a limit on their size."""

from __future__ import annotations

import lzma
import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath, PureWindowsPath

from t2i.core.errors import UserError
from t2i.core.fetch.transfer import need_space
from t2i.core.fetch.web import CHUNK
from t2i.core.io.files import temporary_beside

# Largest size of a member as a multiple of its packed size. Deflate reaches at most 1032, and JSON
# stays under 20.
SWELL = 200
SMALL = 1 << 20  # bytes; members up to this size may have any ratio

UNSOUND = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError,
    RuntimeError,
)  # fmt: skip
"""What reading a damaged archive raises."""


def unpack(archive: Path, folder: Path) -> list[Path]:
    """Unpack a zip archive.

    A file that exists with the right size is not written again.

    Args:
        archive: The zip archive.
        folder: Where its files go.

    Returns:
        The paths of all its files, in the archive's order.

    Raises:
        UserError: Before anything is written: a member's path leads out of the folder, it is a link
            or a device, it is encrypted, it is far larger than its packed size, or the disk is too
            full. Later: the archive is damaged.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            targets = [folder / _inside(archive, member) for member in members]
            wanted = [pair for pair in zip(members, targets, strict=True) if not _is_there(*pair)]
            need_space(folder, sum(member.file_size for member, _ in wanted))
            for member, target in wanted:
                _write(opened, member, target)
            return targets
    except UNSOUND as error:
        raise UserError(
            f"{archive} is no sound zip archive ({str(error)[:100]}); remove it and fetch it again"
        ) from None


def _is_there(member: zipfile.ZipInfo, target: Path) -> bool:
    return target.is_file() and target.stat().st_size == member.file_size


def _inside(archive: Path, member: zipfile.ZipInfo) -> PurePosixPath:
    """Return the path of a member inside the folder, or raise UserError if it is not safe."""
    name, kind = member.filename, stat.S_IFMT(member.external_attr >> 16)
    path = PurePosixPath(name)
    wrong = None
    if (
        path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or PureWindowsPath(name).drive
        or not path.name
    ):
        wrong = "its path leads out of the folder"
    elif kind not in (0, stat.S_IFREG):
        wrong = "it is no ordinary file"
    elif member.flag_bits & 1:
        wrong = "it is encrypted"
    elif member.file_size > max(SMALL, SWELL * member.compress_size):
        wrong = f"it would swell from {member.compress_size} to {member.file_size} bytes"
    if wrong:
        raise UserError(
            f"{archive}: member '{name}' is not unpacked: {wrong}; do not use this archive"
        )
    return path


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write a member.

    zipfile reads no more than the size that was checked, and checks the CRC.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(target)
    try:
        with opened.open(member) as source, open(temporary, "wb") as file:
            while data := source.read(CHUNK):
                file.write(data)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
