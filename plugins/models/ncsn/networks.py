"""The generator of NCSN: scores of noisy images at the noise levels."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.core.families.schedule import like
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.latent.space import SpaceGenerator, autoencoder_of
from t2i.plugins.models.ncsn.config import NCSNConfig, size_step
from t2i.plugins.models.ncsn.levels import NoiseLevels, level_count
from t2i.plugins.models.ncsn.refinenet import RefineNet

RANGE = 2.0
"""Length of the range of our images, [-1, 1], over that of the papers', [0, 1].

A paper's sigma is half of ours, and its score twice ours.
"""


class NCSNGenerator(SpaceGenerator):
    """s_theta(x_t, sigma, y) on pixels, or on latents.

    The papers' images are in [0, 1], and their networks map them to [-1, 1] first. Ours are there
    already. With x_t = 2 x' - 1 the score in x_t is half of that in x'.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes an autoencoder. None: it is loaded as the
            settings say.
    """

    prediction = "score"
    schedule: NoiseLevels

    def __init__(self, config: NCSNConfig, text: TextShape, assets: Path | None = None) -> None:
        super().__init__()
        size, self.config = config.image_size // config.ratio, config
        self.image_size, self.noise_shape = config.image_size, (config.channels, size, size)
        self.autoencoder = autoencoder_of(config.autoencoder, config.image_size, assets)
        self.schedule = noise_levels(config)
        self.size_step = size_step(config)
        self.network = RefineNet(
            config.network,
            config.channels * config.patch**2,
            size // config.patch,
            len(self.schedule),
            text,
        )

    def condition(self, text: TextFeatures) -> TextFeatures:
        return self.network.mapped(text)

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        sigma, patch = like(t, x_t), self.config.patch
        x = x_t / torch.sqrt(1 + sigma**2) if self.config.scaled_input else x_t
        output = self.network(F.pixel_unshuffle(x, patch), self.schedule.embedded(t), text)
        output = F.pixel_shuffle(output, patch)
        if self.config.output == "image":
            return (output - x_t) / sigma**2
        return output / (sigma if self.config.output == "noise" else RANGE)


def noise_levels(config: NCSNConfig) -> NoiseLevels:
    """Return the noise levels that settings name, for images in [-1, 1].

    Args:
        config: The model's settings.

    Returns:
        The levels.
    """
    values = config.channels * (config.image_size // config.ratio) ** 2
    count = config.levels or level_count(config.sigma_begin, config.sigma_end, values)
    return NoiseLevels(RANGE * config.sigma_begin, RANGE * config.sigma_end, count)
