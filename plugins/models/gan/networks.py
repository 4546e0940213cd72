"""Networks of the vanilla GAN. Source: Goodfellow et al. 2014."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.mlp.config import MLPGANConfig
from t2i.plugins.common.gan.mlp.networks import ImageLayers, MLPGenerator, spread


class GANGenerator(MLPGenerator):
    """G, the generator: noise, hidden layers, pixels. The text is ignored.

    Args:
        config: The model's settings.
    """

    def __init__(self, config: MLPGANConfig) -> None:
        super().__init__(config, config.z_dim)

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        return self.images(self.noise_of(noise))


class Score(nn.Module):
    """The discriminator's output: one linear map of the features to a logit.

    Args:
        config: The model's settings.
        width: Width of the features of images.
    """

    def __init__(self, config: MLPGANConfig, width: int) -> None:
        super().__init__()
        self.rate = config.dropout_d
        self.linear = nn.Linear(width, 1)
        spread(self.linear, config.spread_d)

    def forward(self, features: Tensor) -> Tensor:
        """Score images.

        Args:
            features: Features of the images, float (B, width).

        Returns:
            Logits, float (B,). High logits mean "real".
        """
        logits: Tensor = self.linear(F.dropout(features, self.rate, self.training)).flatten()
        return logits


def discriminator(config: MLPGANConfig) -> tuple[ImageLayers, Score]:
    """Build the two parts of the discriminator.

    Args:
        config: The model's settings.

    Returns:
        Its hidden layers and its output.
    """
    layers = ImageLayers(config)
    return layers, Score(config, layers.width)


def build(config: MLPGANConfig, text: TextShape, assets: Path | None) -> GANGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Not used: the images do not depend on the text.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return GANGenerator(config)
