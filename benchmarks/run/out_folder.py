"""The folder OUT of a benchmark or speed run: held by one command, and not somebody else's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.io.clutter import entries
from t2i.core.io.folders import refuse_links
from t2i.core.io.locks import LOCK, folder_lock, take_folder
from t2i.core.io.processes import Group
from t2i.core.runs.folder import is_run

SIGNS = (
    "results.json", "scores", "partial", "grids/real.png", "speedrun.json", "entries",
    "operations.json", LOCK,
)  # fmt: skip
"""What only folders of benchmarks hold. The lock is there from the beginning on."""


@contextmanager
def held_out(out: Path, group: Group) -> Iterator[None]:
    """Hold the folder of a benchmark inside the block, so that only one command uses it.

    The first process holds it for all. The runs in it have locks of their own.

    Args:
        out: The folder; it is made if it does not exist.
        group: The processes of this command.

    Yields:
        Nothing.

    Raises:
        UserError: The folder cannot be made or written to, it holds something else or a link that
            leads out of it, or another command uses it.
    """
    lock = folder_lock(out)

    def take() -> None:
        _check_ours(out)
        check_writable(out)
        take_folder(
            lock, f"--out {out}: another benchmark works there: wait for it, or name another --out"
        )
        refuse_links(out)

    try:
        group.first(take)
        yield
    finally:
        lock.release()


def _check_ours(out: Path) -> None:
    """Raise UserError if a folder holds files, but is no benchmark's: some would be replaced."""
    try:
        empty = not out.is_dir() or not entries(out)
    except OSError:  # making the folder says what is wrong
        return
    if empty or (any(os.path.lexists(out / sign) for sign in SIGNS) and not is_run(out)):
        return
    kind = "a run" if is_run(out) else "not empty"
    raise UserError(f"--out {out}: it is {kind}, and no folder of a benchmark: name another --out")


def check_writable(out: Path) -> None:
    """Create the output folder.

    Args:
        out: The folder.

    Raises:
        UserError: It cannot be created, or not be written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--out {out}: cannot make the folder ({error.strerror}); name another"
        ) from None
    if not os.access(out, os.W_OK):
        raise UserError(f"--out {out}: no permission to write there; name another folder")
