"""Settings of `cub`."""

from t2i.plugins.common.images.config import ImagesConfig


class CUBConfig(ImagesConfig):
    """crop: to the square around the bird's bounding box, as StackGAN and all after it do; needs
    CUB_200_2011/bounding_boxes.txt."""

    crop: bool = True
