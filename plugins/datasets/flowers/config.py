"""Settings of `flowers`."""

from t2i.plugins.common.picture_config import PicturesConfig


class FlowersConfig(PicturesConfig):
    """Those of every set of picture files."""
