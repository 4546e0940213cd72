"""What the environment says of the processes that a launcher (torchrun) started together."""

from __future__ import annotations

import os

from t2i.core.errors import UserError

SIZE = "WORLD_SIZE"
NEEDED = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""Variables that a launcher sets with the number of processes."""

STRAYS = (SIZE, "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK")
"""Variables that have no meaning for a process that is alone."""


def size() -> int:
    """Return the number of processes that run this command together.

    Returns:
        The number, at least 1.

    Raises:
        UserError: WORLD_SIZE is no number.
    """
    text = os.environ.get(SIZE) or "1"
    if not text.strip().isdecimal():
        raise UserError(f"{SIZE}={text!r} is no number of processes: unset it, or use torchrun")
    return max(1, int(text))


def rank() -> int:
    """Return the number of this process among those that run this command together.

    Returns:
        The number, from 0. A RANK that was left in the environment does not count.
    """
    text = os.environ.get("RANK") or "0"
    return int(text) if several() and text.isdecimal() else 0


def several() -> bool:
    """Tell whether several processes run this command together.

    Returns:
        True if a launcher started them.
    """
    return size() > 1


def check_complete() -> None:
    """Check that several processes can find each other, before they try.

    Raises:
        UserError: The environment names several, but not how they find each other.
    """
    if not several():
        return
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing or not os.environ["RANK"].isdecimal():
        lacking = missing[0] if missing else "RANK as a number"
        raise UserError(
            f"{SIZE}={size()} is in the environment, {lacking} is not: "
            f"start with torchrun, or run 'env -u {SIZE} t2i ...'"
        )


def forget_strays() -> None:
    """Remove from the environment what an earlier launcher left, if this process is alone.

    Libraries read it: with LOCAL_RANK they look for other processes.
    """
    if (os.environ.get(SIZE) or "1").strip() == "1":
        for name in STRAYS:
            os.environ.pop(name, None)
