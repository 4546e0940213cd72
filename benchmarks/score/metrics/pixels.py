"""Pixels as features, for data sets without a network that suits them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from t2i.core.interfaces.scoring import FeatureExtractor
from t2i.core.settings import Config

SIDE = 16


class PixelsConfig(Config):
    """Settings of the extractor "pixels", which has none."""


class Pixels(FeatureExtractor):
    """Features made of the pixels: the image averaged by area to 16x16, in [0, 1]."""

    name = "pixels-16"
    weights_sha256 = "none"
    dim = 3 * SIDE * SIDE

    def forward(self, images: Tensor) -> Tensor:
        """Average the images by area.

        Args:
            images: The images, uint8 (B, 3, H, W).

        Returns:
            The features, float32 (B, 768).
        """
        return F.interpolate(images.float() / 255, (SIDE, SIDE), mode="area").flatten(1)


def build(config: PixelsConfig) -> Pixels:
    """Build the feature extractor "pixels".

    Args:
        config: The settings.

    Returns:
        The extractor.
    """
    return Pixels()
