"""Locks of files and folders between processes.

The system releases a lock when its holder ends, however it ends.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from t2i.core.errors import UserError

LOCK = ".lock"
"""Name of the lock file in a folder."""


def take_or_refuse(lock: FileLock, refusal: str) -> None:
    """Acquire a lock at once, or raise an error.

    Args:
        lock: The lock.
        refusal: Message of the error.

    Raises:
        UserError: Another process holds the lock.
    """
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(refusal) from None


def take_or_wait(lock: FileLock, waits: Callable[[], None]) -> None:
    """Acquire a lock, waiting as long as another process holds it.

    Args:
        lock: The lock.
        waits: Called once before waiting, to report it; not called if the lock is free.
    """
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
        UserError: Another process holds the lock, the path is not a folder, or it cannot be written
            to.
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
