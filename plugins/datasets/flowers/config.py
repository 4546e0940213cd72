"""Settings of `flowers`."""

from t2i.plugins.common.pictures.config import PicturesConfig


class FlowersConfig(PicturesConfig):
    """Those of every set of picture files."""
