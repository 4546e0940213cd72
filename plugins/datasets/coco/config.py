"""Settings of the data set `coco`."""

from pydantic import Field

from t2i.plugins.common.images.config import ImagesConfig


class CocoConfig(ImagesConfig):
    """Settings of the data set `coco`.

    `dir` is the folder that holds `annotations`. None: the download of `t2i fetch coco`.
    """

    year: int | None = Field(None, ge=0)
    """Year of the split into train and val, as the names of the annotations have it.

    None: 2014, with which papers compare, if it is there; else 2017; else whatever is there.
    """

    annotations: str | None = Field(None, min_length=1)
    """Name of the annotations' file in `dir`; "{split}" in it stands for train or val.

    It is in COCO's or in Karpathy's format. None: the file is found by its usual name.
    """

    val_share: float | None = Field(None, gt=0, lt=1)
    """Fraction of the images that is val, if only one split is there. Between 0 and 1.

    A hash of its key decides for each image. None: the splits are those of the annotations.
    """
