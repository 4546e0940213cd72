"""The networks of latent diffusion: an autoencoder and a conditional U-Net, both of diffusers.

Source: Rombach et al. 2022.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.core.registry.specs import import_object
from t2i.plugins.common.diffusion.sampling import schedule_of
from t2i.plugins.common.diffusion.unet import conditional_unet
from t2i.plugins.common.latent.autoencoder import Autoencoder
from t2i.plugins.common.latent.space import SpaceGenerator
from t2i.plugins.common.weights.diffusers_folders import described_network, keep_description
from t2i.plugins.models.ldm.config import LDMConfig


class LatentGenerator(SpaceGenerator):
    """Base of generators on the latents z of an autoencoder.

    Args:
        config: The model's settings.
        assets: Folder of a saved model that describes the networks with their own configuration.
            None: they are built or loaded as the settings say.
        vae: diffusers' autoencoder, if it exists already. None: it is built.
    """

    autoencoder: Autoencoder

    def __init__(
        self, config: LDMConfig, assets: Path | None = None, vae: AutoencoderKL | None = None
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


class LDMGenerator(LatentGenerator):
    """eps_theta(z_t, t, tau(y)) on latents, by a U-Net (or z_0 or v, see `prediction`).

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
        super().__init__(config, assets, vae)
        channels, size = config.autoencoder.latent_channels, config.latent_size
        self.unet = conditional_unet(config.unet, channels, size, text, assets, unet)
        self.size_step = config.image_size // size * self.unet.step

    def condition(self, text: TextFeatures) -> TextFeatures:
        return self.unet.condition(text)

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        return self.unet(x_t, self.schedule.embedded(t), text)

    def save_assets(self, folder: Path) -> None:
        super().save_assets(folder)
        if self.config.unet.weights:
            keep_description(self.unet.unet, "unet", folder)


class SDXLGenerator(LDMGenerator):
    """The U-Net of Stable Diffusion XL: it reads a sentence vector and sizes besides the words.

    Source: Podell et al. 2023, section 2.2.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes the networks with their own configuration.
            None: they are loaded as the settings say.

    Raises:
        UserError: The U-Net reads no sizes, or sentences of another width.
    """

    def __init__(self, config: LDMConfig, text: TextShape, assets: Path | None = None) -> None:
        super().__init__(config, text, assets)
        read = self.unet.unet.config
        if read.addition_embed_type != "text_time":
            raise UserError(
                f"unet.weights = {config.unet.weights}: it reads no sizes, as Stable Diffusion "
                "XL's does: set network=unet"
            )
        width = read.projection_class_embeddings_input_dim - 6 * read.addition_time_embed_dim
        if width != text.sentence:
            raise UserError(
                f"unet.weights = {config.unet.weights}: besides six sizes it reads sentences of "
                f"width {width}, and the text encoder's have {text.sentence}; a U-Net that reads "
                "five numbers is the refiner, which samples from images only"
            )

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        output: Tensor = self.unet.unet(
            x_t,
            self.schedule.embedded(t),
            encoder_hidden_states=text.words,
            encoder_attention_mask=text.mask,
            added_cond_kwargs={"text_embeds": text.sentence, "time_ids": self.sizes(x_t)},
            return_dict=False,
        )[0]
        return output

    def sizes(self, x_t: Tensor) -> Tensor:
        """List the sizes that the network takes as input.

        Args:
            x_t: Noisy latents, (B, C, h, w).

        Returns:
            Original height and width, top and left of the crop, and target height and width, in
            pixels, float (B, 6).
        """
        scale, told = self.config.autoencoder.reduction, self.config.sizes
        own = (x_t.shape[2] * scale, x_t.shape[3] * scale)
        numbers = [*(told.original or own), *told.crop, *(told.target or own)]
        return torch.tensor([numbers], dtype=x_t.dtype, device=x_t.device).expand(len(x_t), -1)


GENERATORS = {
    "unet": "t2i.plugins.models.ldm.networks:LDMGenerator",
    "sdxl": "t2i.plugins.models.ldm.networks:SDXLGenerator",
    "sd3": "t2i.plugins.models.ldm.transformers:SD3Generator",
    "pixart": "t2i.plugins.models.ldm.transformers:PixArtGenerator",
}
"""Generators by the setting `network`."""


def generator_of(config: LDMConfig, text: TextShape, assets: Path | None = None) -> LatentGenerator:
    """Build the generator that the settings describe.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes the networks. None: a new model.

    Returns:
        The generator.

    Raises:
        UserError: A pretrained network cannot be loaded, or does not fit the text.
    """
    made: LatentGenerator = import_object(GENERATORS[config.network])(config, text, assets)
    return made
