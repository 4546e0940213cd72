"""Locks of files and folders between processes.

The system releases a lock when its holder ends, however it ends.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from t2i.core.errors import UserError

LOCK = ".lock"
"""Name of the lock file in a folder."""

LOOK = 0.5
"""Seconds to wait for a lock before it counts as held: `is_held` holds it for an instant."""


def take_or_refuse(lock: FileLock, refusal: str) -> None:
    """Acquire a lock at once, or raise an error.

    Args:
        lock: The lock.
        refusal: Message of the error.

    Raises:
        UserError: Another process holds the lock, or its file leads elsewhere.
    """
    _check_file(lock)
    try:
        lock.acquire(timeout=LOOK)
    except Timeout:
        raise UserError(refusal) from None


def is_held(lock: FileLock) -> bool:
    """Tell whether another process holds a lock at the moment.

    Args:
        lock: The lock, which this process does not hold.

    Returns:
        False also if the lock cannot be looked at, as in a folder of somebody else's.
    """
    try:
        _check_file(lock)
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, UserError):
        return False
    lock.release()
    return False


def _check_file(lock: FileLock) -> None:
    """Raise UserError if a lock's file is not its own: some versions of filelock empty the file."""
    path = Path(lock.lock_file)
    try:
        found = path.lstat()
    except OSError:  # it is not there, or taking the lock says what is wrong
        return
    shared = found.st_nlink > 1 and found.st_size > 0
    if shared or not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is no lock file, but a link or a special file: remove it")


def take_or_wait(lock: FileLock, waits: Callable[[], None]) -> None:
    """Acquire a lock, waiting as long as another process holds it.

    Args:
        lock: The lock.
        waits: Called once before waiting, to report it; not called if the lock is free.

    Raises:
        UserError: The lock's file leads elsewhere.
    """
    _check_file(lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waits()
        lock.acquire()


def folder_lock(folder: Path) -> FileLock:
    """Make the lock of a folder, without acquiring it.

    Args:
        folder: The folder; it need not exist yet.

    Returns:
        The lock.
    """
    return FileLock(folder / LOCK)


def take_folder(lock: FileLock, refusal: str) -> None:
    """Create the folder of a lock if it does not exist, and acquire the lock at once.

    Args:
        lock: The folder's lock (`folder_lock`).
        refusal: Message of the error if another process holds the lock.

    Raises:
        UserError: Another process holds the lock, its file leads elsewhere, the path is not a
            folder, or it cannot be written to.
    """
    folder = Path(lock.lock_file).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        take_or_refuse(lock, refusal)
    except FileExistsError:
        raise UserError(
            f"{folder} is there already, and is no folder: choose another --out"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror or error}; choose another --out"
        ) from None
