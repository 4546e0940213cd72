"""Settings of the feature extractors `inception` and `vgg16`."""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import Config


class FidelityConfig(Config):
    """Settings of the features `inception` and `vgg16`."""

    weights: str | None = Field(None, min_length=1)
    """Path of the weights, in the file that their authors published.

    None: the file that `t2i fetch` has downloaded.
    """
