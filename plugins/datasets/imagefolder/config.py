"""Settings of `imagefolder`."""

from t2i.plugins.common.images.config import SplitImagesConfig


class ImageFolderConfig(SplitImagesConfig):
    """caption: of images that have none of their own. None: they are broken, and passed over."""

    caption: str | None = None
