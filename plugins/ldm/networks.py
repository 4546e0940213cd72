"""The networks of latent diffusion (Rombach et al. 2022): an autoencoder and a conditional U-Net, both diffusers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.generator import DiffusionGenerator
from t2i.core.schedule import DiscreteSchedule
from t2i.core.text import TextFeatures, TextShape
from t2i.plugins.ldm.config import AutoencoderConfig, LDMConfig

FLOOR = 0.01  # of the largest variance of any direction in latent space: what is whitened fully
MAP_SIZE = 8  # of the sentence's spatial map, before it is enlarged to the latents' size


class Autoencoder(nn.Module):
    """Images to whitened latents and back.

    Space-to-depth in front (`patch`) keeps the convolutions of a small autoencoder on a small grid. Latents are
    z = W (raw - mean), raw = W^-1 z + mean; mean and W are measured when stage 1 ends (`measure`), until then latents
    are raw.
    """

    def __init__(self, config: AutoencoderConfig, image_size: int) -> None:
        super().__init__()
        self.patch = config.patch
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
        self.vae = vae
        nn.init.constant_(vae.quant_conv.bias[config.latent_channels :], config.first_logvar)
        self.mean: Tensor
        self.whitening: Tensor
        self.colouring: Tensor
        self.register_buffer("mean", torch.zeros(config.latent_channels, 1, 1))
        self.register_buffer("whitening", torch.eye(config.latent_channels)[..., None, None])
        self.register_buffer("colouring", torch.eye(config.latent_channels)[..., None, None])

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


class SentenceMap(nn.Module):
    """sentence (B, D) -> (B, C, h, w): one linear map to a coarse grid, enlarged. Each place gets its own view of the
    sentence, so "in the top left corner" can mean a place from the first layer on."""

    def __init__(self, sentence: int, channels: int, size: int) -> None:
        super().__init__()
        self.channels, self.size = channels, size
        self.coarse = min(MAP_SIZE, size)
        self.linear = nn.Linear(sentence, channels * self.coarse**2)

    def forward(self, sentence: Tensor) -> Tensor:
        grid = self.linear(sentence).view(-1, self.channels, self.coarse, self.coarse)
        return grid if self.coarse == self.size else F.interpolate(grid, size=self.size, mode="bilinear")


class ConditionalUNet(nn.Module):
    """The U-Net with its three ways in for the text: words by cross-attention, the sentence with the time embedding,
    the sentence as a spatial map (the last two as the settings say)."""

    def __init__(self, config: LDMConfig, text: TextShape) -> None:
        super().__init__()
        unet, channels = config.unet, config.autoencoder.latent_channels
        attend = unet.cross_attention
        self.map = SentenceMap(text.sentence, unet.text_map, config.latent_size) if unet.text_map else None
        self.sentence = unet.sentence
        self.unet: Any = UNet2DConditionModel(
            sample_size=config.latent_size,
            in_channels=channels + unet.text_map,
            out_channels=channels,
            down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attend),
            up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attend)),
            block_out_channels=unet.channels,
            layers_per_block=unet.layers,
            cross_attention_dim=text.words,
            attention_head_dim=unet.head_width,
            norm_num_groups=unet.groups,
            resnet_time_scale_shift="scale_shift" if unet.sentence else "default",
            class_embed_type="simple_projection" if unet.sentence else None,
            projection_class_embeddings_input_dim=text.sentence if unet.sentence else None,
        )

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        if self.map is not None:
            x_t = torch.cat([x_t, self.map(text.sentence)], 1)
        output: Tensor = self.unet(
            x_t,
            t,
            encoder_hidden_states=text.words,
            encoder_attention_mask=text.mask,
            class_labels=text.sentence if self.sentence else None,
            return_dict=False,
        )[0]
        return output


class LDMGenerator(DiffusionGenerator):
    """eps_theta(z_t, t, tau(y)) on latents z of an autoencoder."""

    def __init__(self, config: LDMConfig, text: TextShape, assets: Path | None = None) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.noise_shape = (config.autoencoder.latent_channels, config.latent_size, config.latent_size)
        self.schedule = DiscreteSchedule.named(config.schedule, config.timesteps)
        self.prediction = config.prediction
        self.autoencoder = Autoencoder(config.autoencoder, config.image_size)
        self.unet = ConditionalUNet(config, text)

    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        output: Tensor = self.unet(x_t, t, text)
        return output

    def encode(self, images: Tensor) -> Tensor:
        return self.autoencoder.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents)
