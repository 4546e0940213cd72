"""Sealed folders: complete, and checked by a manifest.

A sealed folder holds `manifest.json` with the size and the SHA-256 of each file. It is filled under
a temporary name and renamed in one step, so a folder that has its final name is complete.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.io.clutter import CLUTTER
from t2i.core.io.files import follow_umask, sync_folder
from t2i.core.io.folders import temporary_folder
from t2i.core.io.json_files import read_json, write_json

MANIFEST = "manifest.json"
"""Name of the file in a sealed folder that lists the others."""

HUBS = ("README.md", ".gitattributes", ".cache")
"""What the Hugging Face hub and its downloader add to a folder. Nothing reads it."""


@contextmanager
def sealed(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill, then seal it and move it to its final name.

    If the block raises, the temporary folder is removed and `folder` stays as it was.

    Args:
        folder: The final name. A folder that exists there is replaced.

    Yields:
        The temporary folder, empty, beside `folder`.
    """
    temporary = temporary_folder(folder)
    try:
        yield temporary
        seal(temporary)
        _replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def seal(folder: Path) -> None:
    """Write the manifest of a folder, and make everything in it durable.

    Args:
        folder: The folder. A manifest that is there already is replaced.
    """
    follow_umask(path for path in folder.rglob("*") if path.is_file())
    files = {}
    for path in sorted(
        path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST
    ):
        with open(path, "rb+") as file:
            files[path.relative_to(folder).as_posix()] = {
                "size": path.stat().st_size,
                "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
            os.fsync(file.fileno())
    for inner in folder.rglob("*"):
        if inner.is_dir():
            sync_folder(inner)
    write_json(folder / MANIFEST, {"format": 1, "files": files})


def verify(folder: Path, what: str) -> None:
    """Check that a sealed folder holds exactly what its manifest lists.

    Every file is read, to compare its SHA-256.

    Args:
        folder: The folder.
        what: What the folder is; error messages begin with it.

    Raises:
        UserError: A file is missing, damaged or not listed, or the manifest cannot be read. The
            message names the file.
    """
    manifest = read_json(folder / MANIFEST, what)
    try:
        files = {
            str(name): (int(entry["size"]), str(entry["sha256"]))
            for name, entry in manifest["files"].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise UserError(
            f"{what}: {folder / MANIFEST} is no manifest; restore the folder or start anew"
        ) from None
    present = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and path.relative_to(folder).parts[0] not in HUBS
        and path.name not in CLUTTER
    } - {MANIFEST}
    for name in sorted(files.keys() ^ present):
        state = "is missing" if name in files else "does not belong there"
        raise UserError(f"{what}: {folder / name} {state}; restore the folder or start anew")
    for name, (size, sha256) in files.items():
        with open(folder / name, "rb") as file:
            if (
                os.fstat(file.fileno()).st_size != size
                or hashlib.file_digest(file, "sha256").hexdigest() != sha256
            ):
                raise UserError(
                    f"{what}: {folder / name} is damaged (its SHA-256 is not the manifest's)"
                )


def intact(folder: Path) -> bool:
    """Return whether a sealed folder exists and holds exactly what its manifest lists.

    A replacement of the folder that a crash interrupted is undone first (`settle`). What such a
    crash left beside a folder that is intact is removed.

    Args:
        folder: The folder.

    Returns:
        False if it is missing, incomplete or damaged.
    """
    settle(folder)
    try:
        verify(folder, "folder")
    except UserError:
        return False
    shutil.rmtree(_aside(folder), ignore_errors=True)
    return True


def _replace_folder(source: Path, target: Path) -> None:
    """Move the folder `source` to `target`, replacing what is there.

    Folders cannot be swapped in one step, so the old one is renamed first. If the process dies
    between the two moves, `settle` restores the old one.
    """
    aside = _aside(target)
    while True:
        if target.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(target, aside)
        try:
            os.replace(source, target)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Another process took this one for dead: its `settle` restored the old folder. Retry.
    sync_folder(target.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def settle(folder: Path) -> None:
    """Restore the old folder if a crash interrupted its replacement.

    Args:
        folder: The folder's final name. Nothing happens if it exists.
    """
    aside = _aside(folder)
    if aside.exists() and not folder.exists():
        os.replace(aside, folder)
