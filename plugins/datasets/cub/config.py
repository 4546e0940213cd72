"""Settings of the data set `cub`."""

from typing import Literal

from pydantic import Field

from t2i.plugins.common.images.config import ImagesConfig


class CUBConfig(ImagesConfig):
    """Settings of the data set `cub`."""

    crop: bool = True
    """Whether images are cropped to the square around the bird's bounding box.

    StackGAN and its successors do so. It needs CUB_200_2011/bounding_boxes.txt.
    """

    split: Literal["papers", "official"] = "papers"
    """Which split is used: "papers" or "official".

    "papers": that of StackGAN and its successors, 150 classes for train and 50 others for val, from
    train/filenames.pickle and test/filenames.pickle. "official": that of CUB's authors, both with
    all 200 classes, from CUB_200_2011/train_test_split.txt. Scores on one cannot be compared with
    scores on the other.
    """

    encoding: str | None = Field(None, min_length=1)
    """Encoding of the captions' files, such as "cp1252". None: UTF-8."""
