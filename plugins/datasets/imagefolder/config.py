"""Settings of the data set `imagefolder`."""

from t2i.plugins.common.images.config import SplitImagesConfig


class ImageFolderConfig(SplitImagesConfig):
    """Settings of the data set `imagefolder`."""

    caption: str | None = None
    """Caption of images that have none. None: such images are broken, and are skipped."""
