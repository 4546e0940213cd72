"""EDM's generator: a denoiser D(x; sigma) around a network F."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from t2i.core.families.continuous import VESchedule
from t2i.core.families.schedule import like
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.pixels import PixelGenerator
from t2i.plugins.common.latent.space import SpaceGenerator, autoencoder_of
from t2i.plugins.models.edm.authors import authors_network
from t2i.plugins.models.edm.config import EDMConfig
from t2i.plugins.models.edm.preconditioning import preconditioner


class EDMGenerator(PixelGenerator, SpaceGenerator):
    """D(x; sigma, y) = c_skip x + c_out F(c_in x; c_noise, y) on pixels.

    Timesteps are sigma itself, and D predicts x_0. The paper's c_noise is for the networks of its
    code. The U-Net behind patches embeds 1000 sigma / (1 + sigma) instead, because its sinusoids
    tell numbers from 0 to 1000 apart. Source: Karras et al. 2022, eq. 7.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes a U-Net with its own configuration. None: the
            U-Net is built or loaded as `config.unet` says.
    """

    def __init__(self, config: EDMConfig, text: TextShape, assets: Path | None = None) -> None:
        super().__init__(config, text, assets, authors_network(config, text))
        self.autoencoder = autoencoder_of(config.autoencoder, config.image_size, assets)
        self.schedule = VESchedule(config.sigma_min, config.sigma_max)
        self.prediction = "sample"
        self.preconditioner = preconditioner(config)
        self.authors = config.network is not None

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        c = self.preconditioner.scalings(t)
        number = c.noise if self.authors else self.schedule.embedded(t)
        output = self.network(like(c.into, x_t) * x_t, number, text)
        return like(c.skip, x_t) * x_t + like(c.out, x_t) * output[:, : x_t.shape[1]]
