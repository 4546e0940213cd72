"""Settings of the data set `flowers`."""

from pydantic import Field

from t2i.plugins.common.images.config import ImagesConfig


class FlowersConfig(ImagesConfig):
    """Settings of the data set `flowers`."""

    encoding: str | None = Field(None, min_length=1)
    """Encoding of the captions' files, such as "cp1252". None: UTF-8."""
