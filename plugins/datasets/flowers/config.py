"""Settings of the data set `flowers`."""

from t2i.plugins.common.images.config import ImagesConfig


class FlowersConfig(ImagesConfig):
    """Settings of the data set `flowers`: those that all data sets of image files have."""
