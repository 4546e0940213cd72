"""Settings of `coco`."""

from typing import Literal

from t2i.plugins.common.images.config import ImagesConfig


class CocoConfig(ImagesConfig):
    """dir: the folder with `annotations` (None: where `t2i fetch coco` puts it). year: of the split into train and val
    (None: 2014, which papers compare on, if it is there, else 2017)."""

    year: Literal[2014, 2017] | None = None
