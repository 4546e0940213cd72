"""The outcomes of a check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "FAILED", "skipped"]


class Failed(Exception):
    """The promise is broken. The message says where and how, in one line."""


class Skipped(Exception):
    """The promise cannot be tested here. The message says why."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check.

    Args:
        kind: Kind of the plugin that was checked.
        name: Its name.
        check: Name of the check.
        holds: The promise, in one line.
        state: "ok", "FAILED" or "skipped".
        seconds: How long the check took.
        detail: Why it failed or was skipped; "" if it is ok.
        see: The command that shows more; "" unless it failed.
    """

    kind: str
    name: str
    check: str
    holds: str
    state: State
    seconds: float
    detail: str = ""
    see: str = ""

    def document(self) -> dict[str, Any]:
        """Convert the outcome to a JSON document.

        Returns:
            All fields by name.
        """
        return asdict(self)


def need(condition: bool, otherwise: str) -> None:
    """Raise Failed unless a condition holds.

    Args:
        condition: What must hold.
        otherwise: The message: what is wrong.

    Raises:
        Failed: The condition does not hold.
    """
    if not condition:
        raise Failed(otherwise)
