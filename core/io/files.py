"""Atomic writes of files, and reads of files that others name."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from t2i.core.errors import UserError
from t2i.core.io.documents import MOST_BYTES


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically and durably: after a crash it holds the old bytes or the new ones.

    Args:
        path: The file. Its folder is created if it does not exist.
        data: The new content.
    """
    write_parts(path, [data])


def write_parts(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file atomically and durably, part by part.

    Args:
        path: The file. Its folder is created if it does not exist.
        parts: The new content. It may be read from the old one meanwhile.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with _opened_anew(temporary) as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def place_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically, but not durably.

    However the command ends, the file is complete or absent. After a power failure it may be
    damaged. This is for many files, such as sampled images, for which one fsync each would be too
    slow.

    Args:
        path: The file. Its folder must exist.
        data: The new content.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with _opened_anew(temporary) as file:
        file.write(data)
    os.replace(temporary, path)


def _opened_anew(path: Path) -> BinaryIO:
    """Open a new file to write; what a killed command left there, or a link, is removed first."""
    path.unlink(missing_ok=True)
    return open(path, "xb")


def detach(path: Path) -> None:
    """Make a file that is going to be changed in place a file of its own.

    A symbolic link is removed. Of a file with several names, which a copy by hard links or somebody
    else may have made, this name gets a copy.

    Args:
        path: The file, which need not exist.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        path.unlink()
    elif stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
        temporary = temporary_beside(path)
        try:
            temporary.unlink(missing_ok=True)
            shutil.copy2(path, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """Name a temporary file or folder of this process, and remove those of processes that died.

    Args:
        path: What it is to become.

    Returns:
        The path, in the same folder. Something may be there.
    """
    for litter, process in _litter(path.parent.absolute()).get(path.name, ()):
        if _is_running(process):
            continue
        if litter.is_dir() and not litter.is_symlink():
            shutil.rmtree(litter, ignore_errors=True)
        else:
            litter.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


@lru_cache(maxsize=256)
def _litter(folder: Path) -> dict[str, list[tuple[Path, int]]]:
    """List temporary files and folders by what they were to become, with their processes.

    A process looks into a folder once: it may write thousands of files there.
    """
    found: dict[str, list[tuple[Path, int]]] = {}
    with suppress(OSError), os.scandir(folder) as inside:
        for entry in inside:
            if name := re.fullmatch(r"\.(.+)\.(\d{1,9})\.tmp", entry.name, re.DOTALL | re.ASCII):
                found.setdefault(name[1], []).append((Path(entry.path), int(name[2])))
    return found


def _is_running(process: int) -> bool:
    if os.name == "nt":  # there, this would be Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no number of a process
        return True
    return True


def follow_umask(files: Iterable[Path]) -> None:
    """Give files the permissions that new files have here. Libraries may write for the owner only.

    Args:
        files: The files. No permission is taken away.
    """
    by_folder: dict[Path, int] = {}
    for file in list(files):
        folder = file.parent
        if folder not in by_folder:  # a new file shows the umask, which cannot be read safely
            probe = folder / f".mode.{os.getpid()}.tmp"
            try:
                probe.touch()
                by_folder[folder] = probe.stat().st_mode & 0o777
            finally:
                probe.unlink(missing_ok=True)
        mode = file.stat().st_mode & 0o777
        if mode | by_folder[folder] != mode:
            file.chmod(mode | by_folder[folder])


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, on systems that can.

    Args:
        folder: The folder that holds the renamed files.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_regular(path: Path, what: str) -> None:
    """Check that a path is no pipe, socket or device, which could be waited for, or read, for ever.

    Args:
        path: The path. Nothing is said of a folder, or of one that does not exist.
        what: What the file belongs to; the error begins with it. "": the path.

    Raises:
        UserError: It is one.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        told = f"{what}: {path}" if what else str(path)
        raise UserError(
            f"{told} is no regular file (a pipe, a socket or a device): give a file or a folder"
        )


def read_file(path: Path, what: str) -> bytes:
    """Read a file that the user or another file names.

    Args:
        path: The file.
        what: As for `check_regular`.

    Returns:
        Its content.

    Raises:
        UserError: It is a pipe, a socket or a device.
        OSError: It cannot be read.
    """
    check_regular(path, what)
    return path.read_bytes()


def read_lines(path: Path, what: str) -> Iterator[bytes]:
    """Read the lines of a file in bounded memory, however large it is.

    Args:
        path: The file.
        what: As for `check_regular`.

    Yields:
        The lines without their ends. Those that are longer than MOST_BYTES are left out.

    Raises:
        UserError: It is a pipe, a socket or a device.
        OSError: It cannot be read.
    """
    check_regular(path, what)
    with open(path, "rb") as file:
        within = True  # of a line that is read
        while part := file.readline(MOST_BYTES):
            ends = part.endswith(b"\n")
            if within and (ends or len(part) < MOST_BYTES):
                yield part.rstrip(b"\r\n")
            within = ends
