"""Generators on pixels, or on the latents of an autoencoder."""

from __future__ import annotations

from pathlib import Path

from diffusers import AutoencoderKL
from torch import Tensor

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.plugins.common.latent.autoencoder import Autoencoder
from t2i.plugins.common.latent.config import AutoencoderConfig
from t2i.plugins.common.weights.diffusers_folders import described_network, keep_description


class SpaceGenerator(DiffusionGenerator):
    """Base of diffusion generators on pixels, or on the latents of an autoencoder.

    A subclass sets `autoencoder`.

    Attributes:
        autoencoder: The autoencoder. None: x_0 is the image.
    """

    autoencoder: Autoencoder | None

    def encode(self, images: Tensor) -> Tensor:
        return images if self.autoencoder is None else self.autoencoder.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        return latents if self.autoencoder is None else self.autoencoder.decode(latents)

    def save_assets(self, folder: Path) -> None:
        super().save_assets(folder)
        keep_autoencoder(self.autoencoder, folder)


def autoencoder_of(
    config: AutoencoderConfig | None, image_size: int, assets: Path | None
) -> Autoencoder | None:
    """Build or load an autoencoder.

    Args:
        config: Its settings. None: there is none.
        image_size: Height and width of the images in pixels.
        assets: Folder of a saved model that describes the autoencoder with its own configuration.
            None: it is built or loaded as the settings say.

    Returns:
        The autoencoder. None: there is none.

    Raises:
        UserError: A pretrained autoencoder cannot be loaded, or does not have the sizes that the
            settings describe.
    """
    if config is None:
        return None
    vae = described_network(AutoencoderKL, config.weights, "vae", assets)
    return Autoencoder(config, image_size, vae)


def keep_autoencoder(autoencoder: Autoencoder | None, folder: Path) -> None:
    """Save the description of a pretrained autoencoder beside a model (`Generator.save_assets`).

    Args:
        autoencoder: The autoencoder. None, or one that was not pretrained: nothing is saved.
        folder: Folder of the saved model.
    """
    if autoencoder is not None and autoencoder.pretrained:
        keep_description(autoencoder.vae, "vae", folder)
