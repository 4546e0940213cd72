"""Networks of the conditional GAN. Source: Mirza and Osindero 2014, section 4.1."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.gan.conditioning.standardise import sentence_input
from t2i.plugins.common.gan.mlp.networks import ImageLayers, Layers, MLPGenerator, spread
from t2i.plugins.models.cgan.config import CGANConfig


class CGANGenerator(MLPGenerator):
    """G, the generator: layers of the noise and layers of the sentence, joined by further layers.

    Args:
        config: The model's settings.
        sentence: Width D of a sentence vector.
    """

    def __init__(self, config: CGANConfig, sentence: int) -> None:
        rate = config.dropout_g
        of_noise = Layers(config.z_dim, config.widths_z, config.activations_g, hidden=rate)
        of_text = Layers(sentence, config.widths_text_g, config.activations_g, hidden=rate)
        super().__init__(config, of_noise.width + of_text.width)
        self.sentence = sentence_input(sentence, config.standardise)
        self.of_noise, self.of_text = of_noise, of_text
        for part in (of_noise, of_text):
            spread(part, config.spread_g)
        self.hidden.rates[0] = rate  # what it takes are hidden units already

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        z = self.of_noise(self.noise_of(noise))
        e = self.of_text(self.sentence(text.sentence))
        return self.images(torch.cat([z, e], dim=1))


class PairHead(nn.Module):
    """The discriminator's output: a logit of image and sentence.

    Args:
        config: The model's settings.
        width: Width of the features of images.
        sentence: Width D of a sentence vector.
    """

    def __init__(self, config: CGANConfig, width: int, sentence: int) -> None:
        super().__init__()
        kind, self.rate = (config.activation_d,), config.dropout_d
        sentence *= config.pack
        self.sentence = sentence_input(sentence, config.standardise)
        self.of_text = self.joint = self.project = None
        if config.widths_pair:
            self.of_text = Layers(
                sentence, config.widths_text_d, kind, config.pieces, hidden=self.rate
            )
            self.joint = Layers(
                width + self.of_text.width,
                config.widths_pair,
                kind,
                config.pieces_pair,
                self.rate,
                self.rate,
            )
        if config.projection:
            self.project = nn.Linear(sentence, width, bias=False)
        self.score = nn.Linear(self.joint.width if self.joint else width, 1)
        spread(self, config.spread_d)
        if self.project:
            nn.init.normal_(self.project.weight, std=(sentence * width) ** -0.5)

    def forward(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Score images with sentences.

        Args:
            features: Features of the images, float (B, width).
            sentence: Sentence vectors, float (B, D). Of packs of m images, (B, m D).

        Returns:
            Logits, float (B,). High logits mean "real, and matching the sentence".
        """
        e, h = self.sentence(sentence), features
        if self.of_text is not None and self.joint is not None:
            h = self.joint(torch.cat([features, self.of_text(e)], dim=1))
        logits: Tensor = self.score(F.dropout(h, self.rate, self.training)).flatten()
        if self.project is not None:
            logits = logits + (features * self.project(e)).sum(1)
        return logits


def build(config: CGANConfig, text: TextShape, assets: Path | None) -> CGANGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features. Only the sentence is used.
        assets: Not used: the generator has no assets.

    Returns:
        The generator.
    """
    return CGANGenerator(config, text.sentence)


def discriminator(config: CGANConfig, sentence: int) -> tuple[ImageLayers, PairHead]:
    """Build the two parts of the discriminator.

    Args:
        config: The model's settings.
        sentence: Width D of a sentence vector.

    Returns:
        The layers that take images alone, and the output, which takes the sentence too.
    """
    layers = ImageLayers(config)
    return layers, PairHead(config, layers.width, sentence)
