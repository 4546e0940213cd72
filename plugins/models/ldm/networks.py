"""The networks of latent diffusion: an autoencoder and a conditional U-Net, both of diffusers.

Source: Rombach et al. 2022.
"""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.sampling import schedule_of
from t2i.plugins.common.diffusion.unet import conditional_unet
from t2i.plugins.common.latent.autoencoder import Autoencoder
from t2i.plugins.common.weights.diffusers_folders import described_network, keep_description
from t2i.plugins.models.ldm.config import LDMConfig


class LDMGenerator(DiffusionGenerator):
    """eps_theta(z_t, t, tau(y)) on the latents z of an autoencoder (or z_0 or v, see `prediction`).

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes the networks with their own configuration.
            None: they are built or loaded as the settings say.
        vae: diffusers' autoencoder, if it exists already. None: it is built.
        unet: diffusers' U-Net, if it exists already. None: it is built.
    """

    def __init__(
        self,
        config: LDMConfig,
        text: TextShape,
        assets: Path | None = None,
        *,
        vae: AutoencoderKL | None = None,
        unet: UNet2DConditionModel | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.noise_shape = (
            config.autoencoder.latent_channels,
            config.latent_size,
            config.latent_size,
        )
        self.schedule = schedule_of(config)
        self.prediction = config.prediction
        vae = vae or described_network(AutoencoderKL, config.autoencoder.weights, "vae", assets)
        self.autoencoder = Autoencoder(config.autoencoder, config.image_size, vae)
        channels, size = config.autoencoder.latent_channels, config.latent_size
        self.unet = conditional_unet(config.unet, channels, size, text, assets, unet)
        self.size_step = config.image_size // size * self.unet.step

    def condition(self, text: TextFeatures) -> TextFeatures:
        return self.unet.condition(text)

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        return self.unet(x_t, self.schedule.embedded(t), text)

    def encode(self, images: Tensor) -> Tensor:
        return self.autoencoder.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents)

    def save_assets(self, folder: Path) -> None:
        if self.config.autoencoder.weights:
            keep_description(self.autoencoder.vae, "vae", folder)
        if self.config.unet.weights:
            keep_description(self.unet.unet, "unet", folder)
