"""Settings of the extractors `inception` and `vgg16`."""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import Config


class FidelityConfig(Config):
    """weights: the file as it is published (None: the one that `t2i fetch` has put here)."""

    weights: str | None = Field(None, min_length=1)
