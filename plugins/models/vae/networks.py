"""The generator of the variational autoencoders."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.latent.space import autoencoder_of, keep_autoencoder
from t2i.plugins.common.variational.bound import Latent
from t2i.plugins.models.vae.config import VAEConfig
from t2i.plugins.models.vae.deep import DeepNetwork
from t2i.plugins.models.vae.outputs import output_of
from t2i.plugins.models.vae.plain import PlainNetwork

Network = DeepNetwork | PlainNetwork
"""The networks that can be chosen."""


class Inference(NamedTuple):
    """What a model says of B images.

    Attributes:
        log_prob: log p(x | z, t), summed over the values of x, (B,).
        latents: The groups of latents, with posterior and prior.
    """

    log_prob: Tensor
    latents: list[Latent]


class VAEGenerator(OneShotGenerator):
    """A variational autoencoder; sampling draws latents from the prior and decodes them.

    The noise is that of all groups of latents, and then that of the output where images are drawn
    from p(x | z, t) rather than its mean (`sample_output`).

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes the autoencoder with its own configuration.
            None: it is loaded as the settings say.

    Attributes:
        autoencoder: The autoencoder whose latents are x. None: x are the pixels.
        network: Encoder and decoder.
        output: p(x | z, t).
    """

    def __init__(self, config: VAEConfig, text: TextShape, assets: Path | None = None) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.autoencoder = autoencoder_of(config.autoencoder, config.image_size, assets)
        self.network: Network = (
            DeepNetwork(config, text) if config.network == "deep" else PlainNetwork(config, text)
        )
        self.output = output_of(config, self.network.width)
        self.parts = [math.prod(shape) for shape in self.network.shapes]
        if config.sample_output:
            self.parts.append(self.output.noise_channels * config.side**2)
        self.noise_shape = (sum(self.parts),)

    def condition(self, text: TextFeatures) -> TextFeatures:
        return self.network.mapped(text)

    def forward(self, noise: Tensor, text: TextFeatures) -> Tensor:
        parts = torch.split(noise, self.parts, dim=1)
        shapes = self.network.shapes
        eps = [part.view(-1, *shape) for part, shape in zip(parts, shapes, strict=False)]
        features = self.network.imagine(eps, text, self.config.temperature)
        last = None
        if self.config.sample_output:
            last = parts[-1].view(-1, self.output.noise_channels, *features.shape[2:])
        return self.decode(self.output.draw(features, last)).clamp(-1, 1)

    def encode(self, images: Tensor) -> Tensor:
        """Turn images into x.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).

        Returns:
            The images, or their latents, float (B, C, h, h).
        """
        return images if self.autoencoder is None else self.autoencoder.encode(images)

    def decode(self, x: Tensor) -> Tensor:
        """Turn x into images.

        Args:
            x: Images or latents, float (B, C, h, h).

        Returns:
            Images, float (B, 3, H, H).
        """
        return x if self.autoencoder is None else self.autoencoder.decode(x)

    def infer(self, x: Tensor, text: TextFeatures, noise: Noise, step: int = 0) -> Inference:
        """Draw latents of images from the posterior, and compute log p(x | z, t).

        Args:
            x: Images or latents, float (B, C, h, h). Of outputs of 8-bit pixels: 2 k / 255 - 1.
            text: Features of B captions, conditioned.
            noise: Source of the noise.
            step: Number of the draw.

        Returns:
            The likelihood and the latents.
        """
        entered = x
        if self.autoencoder is None:
            entered = ((x + 1) * 127.5 - self.config.input_mean) / self.config.input_std

        def draw(number: int, shape: torch.Size) -> Tensor:
            return noise.normal(f"z{number}", step, shape).to(x.dtype)

        features, latents = self.network.infer(entered, text, draw)
        return Inference(self.output.log_prob(features, x), latents)

    def save_assets(self, folder: Path) -> None:
        super().save_assets(folder)
        keep_autoencoder(self.autoencoder, folder)


def build(config: VAEConfig, text: TextShape, assets: Path | None) -> VAEGenerator:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model. None: a new model.

    Returns:
        The generator.
    """
    return VAEGenerator(config, text, assets)
