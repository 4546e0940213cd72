"""Settings that data sets of image files share. Light: no torch."""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import DataConfig


class ImagesConfig(DataConfig):
    """Of every data set of image files.

    cache: each image is resized once to `image_size` and kept with the other things that t2i can make again
    (`t2i info` says where), from which later epochs and runs read it.
    """

    cache: bool = False


class SplitImagesConfig(ImagesConfig):
    """Of one that may have to be split. val_share: share of the images that are kept for `val`, where the folder
    does not say which those are: chosen by a hash of their names, so that new images move no old one."""

    val_share: float = Field(0.1, gt=0, lt=1)
