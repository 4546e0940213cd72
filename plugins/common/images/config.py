"""Settings that data sets of image files share. This does not import torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.core.settings import DataConfig


class SquareConfig(DataConfig):
    """Settings of every data set that makes files of images square."""

    fit: Literal["crop", "pad", "squash"] = "crop"
    """How images become square: crop (the central square), pad (on white), or squash (the whole
    image, its sides made equal). "crop" cuts off what is outside the square; "pad" keeps the whole
    image and its shape."""

    max_pixels: int = Field(2**26, ge=1)
    """Largest number of pixels of an image file. A larger one is broken, because a small file can
    claim any size. 2**26 pixels take 200 MB while they are decoded."""


class ImagesConfig(SquareConfig):
    """Settings of every data set of image files."""

    cache: bool = False
    """Whether to keep each image resized to `image_size` in a cache. Later epochs and runs read it
    from there. `t2i info` shows the folder, which can be deleted: the cache is then made again."""


class SplitImagesConfig(ImagesConfig):
    """Settings of a data set that may have no split of its own."""

    val_share: float = Field(0.1, gt=0, lt=1)
    """Share of the images that are kept for the split `val`. Between 0 and 1. Ignored if the folder
    has a split of its own. A hash of its name decides for each image, so adding images moves no old
    one. Where the hash leaves a split empty, one image moves to it, and a single image is in both:
    only then can an image that is added later move an old one."""
