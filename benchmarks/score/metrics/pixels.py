"""Pixels as features: for data sets that have no network of their own."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from t2i.core.interfaces.scoring import FeatureExtractor
from t2i.core.settings import Config

SIDE = 16


class PixelsConfig(Config):
    """Settings: none."""


class Pixels(FeatureExtractor):
    """uint8 (B, 3, H, W) -> float32 (B, 768): the image averaged to 16x16 by area, in [0, 1]."""

    name = "pixels-16"
    weights_sha256 = "none"
    dim = 3 * SIDE * SIDE

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(images.float() / 255, (SIDE, SIDE), mode="area").flatten(1)


def build(config: PixelsConfig) -> Pixels:
    """The feature extractor "pixels"."""
    return Pixels()
