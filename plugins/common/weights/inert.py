"""A class that stands for foreign ones in checkpoints, so that these are never imported."""

from __future__ import annotations

from typing import Any, Self


class Inert:
    """What stands for every foreign class of a checkpoint. It does and keeps nothing.

    Args:
        *args: What the foreign class would be made of.
    """

    def __new__(cls, *args: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass
