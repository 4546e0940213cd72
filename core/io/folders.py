"""Folders that appear only when they are complete.

A folder is filled under a temporary name and renamed in one step.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.io.clutter import clutter_in, entries
from t2i.core.io.files import follow_umask, sync_folder, temporary_beside
from t2i.core.io.tensors import errors_of_the_system


@contextmanager
def arriving(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill, then move it to its final name, without a manifest.

    If the block raises, the temporary folder is removed and `folder` stays as it was.

    Args:
        folder: The final name. It must not exist, or be an empty folder.

    Yields:
        The temporary folder, empty, beside `folder`.

    Raises:
        UserError: `folder` is a file, or a folder that is not empty.
        OSError: The system cannot write a file, for example because the disk is full.
    """
    check_free(folder)
    folder = Path(os.path.realpath(folder))  # a folder cannot replace a link
    with filling(folder) as temporary:
        yield temporary
        _arrive(temporary, folder)


@contextmanager
def filling(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill. It is removed at the end, unless it was moved.

    Args:
        folder: A path beside which it is made. Folders above it are made if they do not exist.

    Yields:
        The temporary folder, empty.

    Raises:
        OSError: The system cannot write a file, for example because the disk is full.
    """
    temporary = temporary_folder(folder)
    try:
        with errors_of_the_system(folder):
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def arrive_numbered(temporary: Path, base: Path) -> Path:
    """Move a folder that is complete to a name that nothing has.

    Args:
        temporary: The folder (`filling`).
        base: The preferred name.

    Returns:
        Its new path: `base`, or else the first of `base`-2, `base`-3, ... that is free.
    """
    return next(place for place in numbered(base) if _arrived(temporary, place))


def numbered(base: Path) -> Iterator[Path]:
    """List the names for a new folder, or for one of its kind.

    Args:
        base: The preferred name.

    Yields:
        `base`, `base`-2, `base`-3, ... without end.
    """
    yield base
    for n in count(2):
        yield base.with_name(f"{base.name}-{n}")


def _arrived(temporary: Path, folder: Path) -> bool:
    """Move a complete folder to its name; return False if something else has it."""
    if os.path.lexists(folder):
        return False
    try:
        _arrive(temporary, folder)
    except UserError:  # another command was faster
        return False
    return True


def _arrive(temporary: Path, folder: Path) -> None:
    """Move a complete folder to its name, if nothing else has it."""
    follow_umask(path for path in temporary.rglob("*") if path.is_file())
    for file in clutter_in(folder):
        os.replace(file, temporary / file.name)
    try:
        os.replace(temporary, folder)
    except OSError:
        check_free(folder)  # another command was faster
        raise
    sync_folder(folder.parent)


def temporary_folder(folder: Path) -> Path:
    """Make an empty folder to fill beside another, and remove those that killed processes left.

    Args:
        folder: The other one, which need not exist.

    Returns:
        The folder.
    """
    temporary = temporary_beside(folder)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def check_free(folder: Path) -> None:
    """Check that a folder does not exist yet, or is empty.

    Args:
        folder: Where a command is going to write.

    Raises:
        UserError: It is a file, or a folder that holds more than clutter (`clutter.py`).
    """
    if folder.exists() and (not folder.is_dir() or entries(folder)):
        raise UserError(f"{folder} is there already, and not empty: choose another --out")


def refuse_links(folder: Path) -> None:
    """Check that no symbolic link below a folder leads out of it.

    What a command writes through such a link would land elsewhere.

    Args:
        folder: A folder from another source, in which a command is going to write.

    Raises:
        UserError: A link leads out of the folder.
    """
    inside = Path(os.path.realpath(folder))
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            # realpath, unlike Path.resolve, also ends where links lead in a circle
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(inside):
                raise UserError(
                    f"{path} is a link that leads out of {folder}: "
                    "put what it leads to in its place"
                )
