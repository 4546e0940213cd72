"""Locks of files and folders between processes. However their holder dies, the system drops them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from t2i.core.errors import UserError

LOCK = ".lock"
"""Name of the file in a folder that is its lock."""


def take_or_refuse(lock: FileLock, refusal: str) -> None:
    """Takes a lock at once. UserError, saying `refusal`, if another process holds it."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(refusal) from None


def take_or_wait(lock: FileLock, waits: Callable[[], None]) -> None:
    """Takes a lock. `waits` is called first if another process holds it."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waits()
        lock.acquire()


def folder_lock(folder: Path) -> FileLock:
    """The lock of a folder, not yet taken."""
    return FileLock(folder / LOCK)


def take_folder(lock: FileLock, refusal: str) -> None:
    """Makes the folder of a lock, unless it is there, and takes the lock at once.

    Raises:
        UserError: another process holds it (`refusal` is what is said), or it is no folder, or cannot be written to.
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
