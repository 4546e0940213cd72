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


class Discriminator(nn.Module):
    """D, the discriminator: hidden layers, then one linear map to a logit.

    Args:
        config: The model's settings.
    """

    def __init__(self, config: MLPGANConfig) -> None:
        super().__init__()
        self.rate = config.dropout_d
        self.layers = ImageLayers(config)
        self.score = nn.Linear(self.layers.width, 1)
        spread(self.score, config.spread_d)

    def forward(self, images: Tensor) -> Tensor:
        """Score images.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).

        Returns:
            Logits, float (B,). High logits mean "real".
        """
        h = self.layers(images)
        if self.rate:
            h = F.dropout(h, self.rate, self.training)
        logits: Tensor = self.score(h).flatten()
        return logits


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
