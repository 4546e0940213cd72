"""The networks of latent diffusion (Rombach et al. 2022): an autoencoder and a conditional U-Net, both diffusers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.sampling import schedule_of
from t2i.plugins.common.diffusion.unet import conditional_unet
from t2i.plugins.common.weights.diffusers_folders import described_network, keep_description
from t2i.plugins.models.ldm.config import AutoencoderConfig, LDMConfig

FLOOR = 0.01  # of the largest variance of any direction in latent space: what is whitened fully


class Autoencoder(nn.Module):
    """Images to whitened latents and back.

    Space-to-depth in front (`patch`) keeps the convolutions of a small autoencoder on a small grid. Latents are
    z = W (raw - mean), raw = W^-1 z + mean; mean and W are measured when stage 1 ends (`measure`), until then latents
    are raw. Those of an autoencoder that was trained elsewhere (`vae`, of diffusers) have the scale it comes with.
    pretrained: whether it is such a one.
    """

    def __init__(self, config: AutoencoderConfig, image_size: int, vae: Any = None) -> None:
        super().__init__()
        self.patch, self.pretrained = config.patch, vae is not None
        self.vae: Any = vae or _own(config, image_size)
        self.mean: Tensor
        self.whitening: Tensor
        self.colouring: Tensor
        self.register_buffer("mean", torch.zeros(config.latent_channels, 1, 1))
        self.register_buffer("whitening", torch.eye(config.latent_channels)[..., None, None])
        self.register_buffer("colouring", torch.eye(config.latent_channels)[..., None, None])
        if vae is not None:
            _check_fit(vae, config)
            self.requires_grad_(False)
            self.mean.fill_(vae.config.shift_factor or 0)
            self.whitening *= vae.config.scaling_factor
            self.colouring /= vae.config.scaling_factor

    def posterior(self, images: Tensor) -> DiagonalGaussianDistribution:
        """q(z | x) over raw latents (B, C, h, w), for images (B, 3, H, W) in [-1, 1]."""
        posterior: DiagonalGaussianDistribution = self.vae.encode(F.pixel_unshuffle(images, self.patch)).latent_dist
        return posterior

    def reconstruct(self, z: Tensor) -> Tensor:
        """Images (B, 3, H, W) of raw latents, not clamped."""
        images: Tensor = F.pixel_shuffle(self.vae.decode(z).sample, self.patch)
        return images

    def encode(self, images: Tensor) -> Tensor:
        """Latents of unit covariance: the posterior's mean, whitened."""
        return F.conv2d(self.posterior(images).mode() - self.mean, self.whitening)

    def decode(self, latents: Tensor) -> Tensor:
        return self.reconstruct(F.conv2d(latents, self.colouring) + self.mean)

    def measure(self, raw: Tensor) -> None:
        """Sets mean and W = C^-1/2 from a sample of raw latents (N, C, h, w), C being the covariance of their channels.

        One factor for all (Stable Diffusion's 0.18215) would leave the brightness of the background varying twenty
        times as much as the outline of an object: noise would drown the outline long before the background, and the
        squared error would hardly count it. Directions of less than FLOOR of the largest variance are not blown up to
        unit variance: they hold little but the posterior's own noise.
        """
        rows = raw.movedim(1, -1).flatten(0, 2).cpu().double()
        variances, directions = torch.linalg.eigh(torch.cov(rows.T))
        scales = variances.clamp_min(FLOOR * variances.max()).sqrt()
        self.mean.copy_(rows.mean(0).view_as(self.mean))
        self.whitening.copy_((directions / scales @ directions.T).view_as(self.whitening))
        self.colouring.copy_((directions * scales @ directions.T).view_as(self.colouring))


def _own(config: AutoencoderConfig, image_size: int) -> AutoencoderKL:
    levels = len(config.channels)
    vae: Any = AutoencoderKL(
        in_channels=3 * config.patch**2,
        out_channels=3 * config.patch**2,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.channels,
        layers_per_block=config.layers,
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
        sample_size=image_size // config.patch,
        mid_block_add_attention=config.attention,
    )
    nn.init.constant_(vae.quant_conv.bias[config.latent_channels :], config.first_logvar)
    made: AutoencoderKL = vae
    return made


def _check_fit(vae: Any, config: AutoencoderConfig) -> None:
    given = (2 ** (len(vae.config.block_out_channels) - 1), vae.config.latent_channels)
    if given != (config.reduction, config.latent_channels):
        raise UserError(
            f"autoencoder.weights = {config.weights}: its latents are {given[0]} times smaller than the picture, of "
            f"{given[1]} channels; describe it with --set autoencoder.channels={list(vae.config.block_out_channels)} "
            f"--set autoencoder.latent_channels={given[1]}"
        )
    if vae.config.in_channels != 3:
        raise UserError(f"autoencoder.weights = {config.weights}: its pictures have {vae.config.in_channels} channels")


class LDMGenerator(DiffusionGenerator):
    """eps_theta(z_t, t, tau(y)) on latents z of an autoencoder. vae, unet: diffusers' networks, where they are there
    already; assets: of a saved model, what describes those that came with their own configuration."""

    def __init__(
        self, config: LDMConfig, text: TextShape, assets: Path | None = None, *, vae: AutoencoderKL | None = None,
        unet: UNet2DConditionModel | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.noise_shape = (config.autoencoder.latent_channels, config.latent_size, config.latent_size)
        self.schedule = schedule_of(config)
        self.prediction = config.prediction
        vae = vae or described_network(AutoencoderKL, config.autoencoder.weights, "vae", assets)
        self.autoencoder = Autoencoder(config.autoencoder, config.image_size, vae)
        channels, size = config.autoencoder.latent_channels, config.latent_size
        self.unet = conditional_unet(config.unet, channels, size, text, assets, unet)

    def condition(self, text: TextFeatures) -> TextFeatures:
        return self.unet.mapped(text)

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        output: Tensor = self.unet(x_t, t, text)
        return output

    def encode(self, images: Tensor) -> Tensor:
        return self.autoencoder.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents)

    def save_assets(self, folder: Path) -> None:
        if self.config.autoencoder.weights:
            keep_description(self.autoencoder.vae, "vae", folder)
        if self.config.unet.weights:
            keep_description(self.unet.unet, "unet", folder)
