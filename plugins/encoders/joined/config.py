"""Settings of the text encoder `joined`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from t2i.core.settings import Config

Part = Mapping[str, Any]
"""`name` of a text encoder, and its settings."""


class JoinedConfig(Config):
    """Settings of the text encoder `joined`."""

    beside: tuple[Part, ...] = Field(({"name": "none"},), min_length=1, max_length=8)
    """Encoders whose word vectors stand side by side: word i of the first, then of the second.

    Each is a mapping of `name` and the settings of that text encoder. Encoders that are fitted to a
    data set cannot be parts.
    """
    after: Part | None = None
    """Encoder whose word vectors follow after those of `beside`. None: there is none.

    Its sentence vector is not used.
    """
    width: int | None = Field(None, ge=1, le=1_000_000)
    """Width to which word vectors are padded with zeros. None: that of the widest."""
    zeros: int = Field(0, ge=0, le=100_000)
    """Number of word vectors of zeros that follow after all others. They count as words.

    Stable Diffusion 3 has 256 if it lacks its T5.
    """
    sentence: Literal["all", "last"] = "all"
    """Which sentence vectors of `beside` are used: "all", side by side, or that of the "last"."""
    empty: Literal["encoded", "zeros"] = "encoded"
    """What stands for no caption: the empty caption "encoded", or "zeros" of the same shape."""

    @field_validator("beside", "after")
    @classmethod
    def _named(cls, given: Any) -> Any:
        for part in given if isinstance(given, tuple) else filter(None, [given]):
            if not isinstance(part.get("name"), str):
                raise ValueError("each part is a mapping with the name of a text encoder")
            if part["name"] == "joined":
                raise ValueError("a part cannot be joined itself")
        return given
