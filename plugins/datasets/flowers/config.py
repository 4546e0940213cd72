"""Settings of `flowers`."""

from t2i.plugins.common.images.config import ImagesConfig


class FlowersConfig(ImagesConfig):
    """Those of every set of image files."""
