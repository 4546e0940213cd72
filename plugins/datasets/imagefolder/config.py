"""Settings of `imagefolder`."""

from t2i.plugins.common.pictures.config import SplitPicturesConfig


class ImageFolderConfig(SplitPicturesConfig):
    """caption: of pictures that have none of their own. None: they are broken, and passed over."""

    caption: str | None = None
