"""PickScore: a CLIP ViT-H/14 that was trained on which of two images people picked.

Source: Kirstain et al. 2023.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from t2i.plugins.common.clip.features import ClipFeatures, source_of
from t2i.plugins.common.images.resize import cropped
from t2i.plugins.features.preference.config import PickScoreConfig


class PickScore(ClipFeatures):
    """PickScore's vectors, float32 (B, 1024).

    Vectors of images have unit length. Vectors of captions have the length that the network learned
    (exp of its `logit_scale`, about 100), so that the product of the two is the score.

    Args:
        title: Registry name of the extractor, for error messages.
        config: Settings.
        source: Folder or hub name from which the weights are loaded.

    Raises:
        UserError: Weights or tokenizer cannot be found, are damaged, or do not fit together.
    """

    def __init__(self, title: str, config: PickScoreConfig, source: str) -> None:
        super().__init__(title, config, source)
        self.name = f"PickScore {config.weights}"
        self.networks = (title, *self.networks)

    def resized(self, images: Tensor) -> Tensor:
        return cropped(images, self.side)

    def forward(self, images: Tensor) -> Tensor:
        return F.normalize(super().forward(images), dim=-1)

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        scale: Tensor = self.network.logit_scale.exp()
        return scale * F.normalize(super().encode_text(captions), dim=-1)


def build(config: PickScoreConfig) -> PickScore:
    """Build the features `pickscore`.

    Args:
        config: Settings.

    Returns:
        The extractor.

    Raises:
        UserError: The weights cannot be found; the message says what to do.
    """
    return PickScore(config.title, config, source_of(config))
