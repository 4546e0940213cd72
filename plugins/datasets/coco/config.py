"""Settings of the data set `coco`."""

from typing import Literal

from t2i.plugins.common.images.config import ImagesConfig


class CocoConfig(ImagesConfig):
    """Settings of the data set `coco`.

    `dir` is the folder that holds `annotations`. None: the download of `t2i fetch coco`.
    """

    year: Literal[2014, 2017] | None = None
    """Year of the split into train and val.

    None: 2014, with which papers compare, if it is there; else 2017.
    """
