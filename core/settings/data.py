"""The settings that every data set has."""

from __future__ import annotations

import pydantic
from pydantic import Field

from t2i.core.settings.base import Config


class DataConfig(Config):
    """The base class of every data set's settings."""

    image_size: int = Field(32, ge=8)
    """Height and width at which images are loaded, in pixels.

    The run sets it to the size that the model needs.
    """

    dir: str | None = None
    """Folder of the data set.

    None: no folder is given. Data sets that are read from a folder then raise an error.
    """

    max_broken: float = Field(0.01, ge=0, lt=1)
    """Largest share of unreadable examples.

    From 0 to below 1. Up to this share they are skipped; beyond it, reading fails if they are more
    than `few_broken` too.
    """

    few_broken: int = Field(5, ge=0)
    """Number of unreadable examples that are skipped whatever their share is.

    More than half of a data set is always too much. 0: `max_broken` alone decides.
    """


class AbsentData(DataConfig):
    """Settings of a data set that is not installed, kept unchecked.

    A model that was trained on it can still be sampled.
    """

    model_config = pydantic.ConfigDict(extra="allow")
