"""Settings of the data set `cub`."""

from t2i.plugins.common.images.config import ImagesConfig


class CUBConfig(ImagesConfig):
    """Settings of the data set `cub`."""

    crop: bool = True
    """Whether images are cropped to the square around the bird's bounding box.

    StackGAN and its successors do so. It needs CUB_200_2011/bounding_boxes.txt.
    """
