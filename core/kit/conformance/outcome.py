"""What may come of a check."""

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
    """One check of one thing. detail: why it failed or was skipped; see: the command that shows more."""

    kind: str
    name: str
    check: str
    holds: str
    state: State
    seconds: float
    detail: str = ""
    see: str = ""

    def document(self) -> dict[str, Any]:
        return asdict(self)


def need(condition: bool, otherwise: str) -> None:
    """Raises Failed, saying what is wrong, unless the condition holds."""
    if not condition:
        raise Failed(otherwise)
