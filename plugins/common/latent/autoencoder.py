"""An autoencoder of images, diffusers' AutoencoderKL, and its training, for latent diffusion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from t2i.core.errors import UserError
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Trainer
from t2i.plugins.common.gan.conditioning import kl_loss
from t2i.plugins.common.latent.config import AutoencoderConfig

FLOOR = 0.01  # directions with less than this share of the largest variance are not fully whitened
MEASURED = 512  # number of images whose latents are measured


class Autoencoder(nn.Module):
    """Maps images to whitened latents and back.

    Space-to-depth in front (`patch`) keeps the convolutions of a small autoencoder on a small grid.
    Latents are z = W (raw - mean), and raw = W^-1 z + mean. The mean and W are measured when the
    first stage ends (`measure`); until then latents are raw. A pretrained autoencoder keeps the
    scale it comes with.

    Args:
        config: Settings of the autoencoder.
        image_size: Height and width of the images, in pixels.
        vae: A pretrained AutoencoderKL of diffusers, which is frozen. None: a new one.

    Attributes:
        pretrained: Whether the autoencoder was pretrained.

    Raises:
        UserError: The pretrained autoencoder does not fit the settings.
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
        """Compute q(z | x) over raw latents.

        Args:
            images: Images, float (B, 3, H, W) in [-1, 1].

        Returns:
            The distribution of latents (B, C, h, w).
        """
        posterior: DiagonalGaussianDistribution = self.vae.encode(
            F.pixel_unshuffle(images, self.patch)
        ).latent_dist
        return posterior

    def reconstruct(self, z: Tensor) -> Tensor:
        """Decode raw latents.

        Args:
            z: Raw latents, float (B, C, h, w).

        Returns:
            The images, float (B, 3, H, W), not clamped.
        """
        images: Tensor = F.pixel_shuffle(self.vae.decode(z).sample, self.patch)
        return images

    def encode(self, images: Tensor) -> Tensor:
        """Encode images as latents of unit covariance: the posterior's mean, whitened.

        Args:
            images: Images, float (B, 3, H, W) in [-1, 1].

        Returns:
            The latents, float (B, C, h, w).
        """
        return F.conv2d(self.posterior(images).mode() - self.mean, self.whitening)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents of unit covariance.

        Args:
            latents: Latents, float (B, C, h, w).

        Returns:
            The images, float (B, 3, H, W), not clamped.
        """
        return self.reconstruct(F.conv2d(latents, self.colouring) + self.mean)

    def measure(self, raw: Tensor) -> None:
        """Set the mean and W = C^-1/2, where C is the covariance of the channels of some latents.

        A single factor for all channels (Stable Diffusion's 0.18215) would leave the brightness of
        the background varying twenty times as much as the outline of an object. Noise would drown
        the outline long before the background, and the squared error would hardly count it.
        Directions of less than FLOOR of the largest variance are not scaled up to unit variance,
        because they hold little but the posterior's own noise.

        Args:
            raw: Raw latents, float (N, C, h, w).
        """
        rows = raw.movedim(1, -1).flatten(0, 2).cpu().double()
        variances, directions = torch.linalg.eigh(torch.cov(rows.T))
        scales = variances.clamp_min(FLOOR * variances.max()).sqrt()
        self.mean.copy_(rows.mean(0).view_as(self.mean))
        self.whitening.copy_((directions / scales @ directions.T).view_as(self.whitening))
        self.colouring.copy_((directions * scales @ directions.T).view_as(self.colouring))


def _own(config: AutoencoderConfig, image_size: int) -> AutoencoderKL:
    """Build a new AutoencoderKL."""
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
    """Raise UserError if a pretrained autoencoder has another shape than the settings say."""
    given = (2 ** (len(vae.config.block_out_channels) - 1), vae.config.latent_channels)
    if given != (config.reduction, config.latent_channels):
        raise UserError(
            f"autoencoder.weights = {config.weights}: its latents are {given[0]} times smaller "
            f"than the image, of {given[1]} channels; describe it with --set "
            f"autoencoder.channels={list(vae.config.block_out_channels)} --set "
            f"autoencoder.latent_channels={given[1]}"
        )
    if vae.config.in_channels != 3:
        raise UserError(
            f"autoencoder.weights = {config.weights}: its images have {vae.config.in_channels} "
            "channels"
        )


class AutoencoderTrainer(Trainer):
    """Trains an autoencoder with the squared error of the reconstruction and a KL term.

    The loss is the mean squared error + kl_weight KL(q(z | x) || N(0, I)).

    Source: thesis 2.32.

    Args:
        config: Settings of the training.
        autoencoder: The autoencoder.
    """

    def __init__(self, config: AutoencoderConfig, autoencoder: Autoencoder) -> None:
        self.config, self.autoencoder = config, autoencoder
        self.modules: dict[str, nn.Module] = {"autoencoder": autoencoder}
        self.optimizers = {
            "autoencoder": Adam(autoencoder.parameters(), config.lr, betas=config.betas, fused=True)
        }

    def step(self, batch: Batch, engine: Engine) -> Losses:
        q = self.autoencoder.posterior(batch.images)
        z = q.mean + q.std * batch.noise.normal("z", 0, q.mean.shape[1:])
        reconstruction = (self.autoencoder.reconstruct(z) - batch.images).square().mean()
        kl = kl_loss(q.mean, q.logvar)
        engine.update("autoencoder", reconstruction + self.config.kl_weight * kl)
        return {"reconstruction": reconstruction, "kl": kl}

    @torch.no_grad()
    def preview(self, batch: Batch) -> Tensor:
        """Show originals and their reconstructions, in turn."""
        reconstructions = self.autoencoder.decode(self.autoencoder.encode(batch.images))
        return torch.stack([batch.images, reconstructions], 1).flatten(0, 1)

    @torch.no_grad()
    def finish(self, batches: Callable[[], Batch]) -> None:
        """Measure how to whiten the latents, because diffusion needs unit variance.

        Args:
            batches: Returns another batch of training data at each call.
        """
        raw: list[Tensor] = []
        while sum(map(len, raw)) < MEASURED:
            raw.append(self.autoencoder.posterior(batches().images).mode())
        self.autoencoder.measure(torch.cat(raw))
