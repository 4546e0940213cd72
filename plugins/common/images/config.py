"""Settings that data sets of image files share.

This module does not import torch, so that settings can be listed quickly.
"""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import DataConfig


class ImagesConfig(DataConfig):
    """Settings of every data set of image files."""

    cache: bool = False
    """Whether to resize each image once and keep the result on disk, for later epochs and runs.
    `t2i info` prints the folder."""


class SplitImagesConfig(ImagesConfig):
    """Settings of a data set of image files that may have no split of its own."""

    val_share: float = Field(0.1, gt=0, lt=1)
    """Share of the images that form the split `val`, where the folder does not define one, between
    0 and 1. A hash of the image's name decides, so that adding images does not move old ones to
    another split."""
