"""Settings that data sets of image files share. This does not import torch."""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import DataConfig


class ImagesConfig(DataConfig):
    """Settings of every data set of image files."""

    cache: bool = False
    """Whether to keep each image resized to `image_size` in a cache. Later epochs and runs read it
    from there. `t2i info` shows the folder, which can be deleted: the cache is then made again."""


class SplitImagesConfig(ImagesConfig):
    """Settings of a data set that may have no split of its own."""

    val_share: float = Field(0.1, gt=0, lt=1)
    """Share of the images that are kept for the split `val`. Between 0 and 1. Ignored if the folder
    has a split of its own. A hash of its name decides for each image, so adding images moves no old
    one."""
