"""The autoencoder of latent diffusion, diffusers' AutoencoderKL, and its training."""

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
from t2i.plugins.common.gan.conditioning.augmentation import kl_loss
from t2i.plugins.common.latent.config import AutoencoderConfig
from t2i.plugins.common.tokens.losses import ImageLosses
from t2i.plugins.common.tokens.quantizers import Codebook, observe

FLOOR = 0.01  # smallest variance that is scaled to 1, as a fraction of the largest one
MEASURED = 512  # images, at least, whose latents are measured for the whitening


class Autoencoder(nn.Module):
    """An autoencoder between images and whitened latents.

    Latents are z = W (raw - mean), and raw = W^-1 z + mean. `measure` sets mean and W when the
    autoencoder's stage ends; until then latents are raw. The latents of a pretrained autoencoder
    are shifted and scaled by its own configuration instead.

    With the regularisation "vq" the first step of decoding replaces each raw latent vector by the
    nearest one of a codebook.

    The space-to-depth of `patch` pixels keeps the convolutions of a small autoencoder on a small
    grid.

    Args:
        config: Settings of the autoencoder.
        image_size: Height and width of the images in pixels. A pretrained autoencoder ignores it.
        vae: A pretrained AutoencoderKL, which is frozen. None: a new one, with random weights.

    Attributes:
        pretrained: Whether `vae` was given.
        mean: Mean of raw latents, (C, 1, 1).
        whitening: W as a 1x1 convolution, (C, C, 1, 1).
        colouring: W^-1 as a 1x1 convolution, (C, C, 1, 1).
        quantizer: The codebook of the regularisation "vq". None: there is none.

    Raises:
        UserError: The pretrained autoencoder does not have the sizes that the settings describe.
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
        self.quantizer: Codebook | None = None
        if config.regularisation == "vq" and vae is None:
            book = config.codebook
            self.quantizer = Codebook(book.quantizer, book.vocabulary, config.latent_channels)
        if vae is not None:
            _check_fit(vae, config)
            self.requires_grad_(False)
            self.mean.fill_(vae.config.shift_factor or 0)
            self.whitening *= vae.config.scaling_factor
            self.colouring /= vae.config.scaling_factor

    def posterior(self, images: Tensor) -> DiagonalGaussianDistribution:
        """Compute the distribution q(z | x) of raw latents.

        Args:
            images: Images (B, 3, H, W) in [-1, 1].

        Returns:
            A normal distribution over raw latents (B, C, h, w) with diagonal covariance.
        """
        posterior: DiagonalGaussianDistribution = self.vae.encode(
            F.pixel_unshuffle(images, self.patch)
        ).latent_dist
        return posterior

    def reconstruct(self, z: Tensor) -> Tensor:
        """Decode raw latents, which were quantised before if there is a codebook.

        Args:
            z: Raw latents (B, C, h, w).

        Returns:
            Images (B, 3, H, W), not clamped to [-1, 1].
        """
        images: Tensor = F.pixel_shuffle(self.vae.decode(z).sample, self.patch)
        return images

    def encode(self, images: Tensor) -> Tensor:
        """Encode images as whitened latents, the means of their posteriors.

        Args:
            images: Images (B, 3, H, W) in [-1, 1].

        Returns:
            Latents (B, C, h, w), of about unit covariance over channels after `measure`.
        """
        return F.conv2d(self.posterior(images).mode() - self.mean, self.whitening)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode whitened latents.

        Args:
            latents: Latents (B, C, h, w), as `encode` returns them.

        Returns:
            Images (B, 3, H, W), not clamped to [-1, 1].
        """
        raw = F.conv2d(latents, self.colouring) + self.mean
        return self.reconstruct(raw if self.quantizer is None else self.quantizer(raw).vectors)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weights at which the adaptive weight compares gradients."""
        weight: nn.Parameter = self.vae.decoder.conv_out.weight
        return weight

    def measure(self, raw: Tensor) -> None:
        """Set mean and W = C^-1/2, where C is the covariance of the latents' channels.

        With one factor for all channels (Stable Diffusion's 0.18215) the brightness of the
        background would vary twenty times as much as the outline of an object. Noise would then
        hide the outline long before the background, and the squared error would hardly count it.

        Directions with less than FLOOR of the largest variance are scaled less, not to unit
        variance: they hold little but the posterior's own noise.

        Args:
            raw: Raw latents of N images, (N, C, h, w).
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
    if given != (config.reduction // config.patch, config.latent_channels):
        raise UserError(
            f"autoencoder.weights = {config.weights}: its latents are {given[0]} times smaller "
            f"than its input, of "
            f"{given[1]} channels; describe it with --set "
            f"autoencoder.channels={list(vae.config.block_out_channels)} "
            f"--set autoencoder.latent_channels={given[1]}"
        )
    if vae.config.in_channels != 3 * config.patch**2:
        raise UserError(
            f"autoencoder.weights = {config.weights}: its images have {vae.config.in_channels} "
            f"channels, patches of autoencoder.patch = {config.patch} have {3 * config.patch**2}"
        )


class AutoencoderTrainer(Trainer):
    """Trainer of the autoencoder.

    The loss is the error of the reconstruction, the perceptual and the adversarial term, and the
    regularisation: kl_weight KL(q(z | x) || N(0, I)), or the codebook's loss.

    Source: equation 2.32 of the thesis.

    Args:
        config: Settings of the autoencoder and its training.
        autoencoder: The autoencoder to train.
    """

    previews = "Left a real image, right its reconstruction. Captions play no part yet."

    def __init__(self, config: AutoencoderConfig, autoencoder: Autoencoder) -> None:
        self.config, self.autoencoder = config, autoencoder
        self.losses = ImageLosses(config.losses, config.lr, config.betas)
        self.modules: dict[str, nn.Module] = {"autoencoder": autoencoder, **self.losses.modules}
        trained = [p for p in autoencoder.parameters() if p.requires_grad]
        self.optimizers = {
            "autoencoder": Adam(trained, config.lr, betas=config.betas, fused=True),
            **self.losses.optimizers,
        }

    def step(self, batch: Batch, engine: Engine) -> Losses:
        q, images = self.autoencoder.posterior(batch.images), batch.images
        quantised = (
            None if self.autoencoder.quantizer is None else self.autoencoder.quantizer(q.mean)
        )
        if quantised is None:
            kl = kl_loss(q.mean, q.logvar)
            z = q.mean + q.std * batch.noise.normal("z", 0, q.mean.shape[1:])
            regularisation, name = self.config.kl_weight * kl, {"kl": kl}
        else:
            z, regularisation = quantised.vectors, quantised.loss
            name = {"quantizer": quantised.loss}
        shown = self.autoencoder.reconstruct(z)
        error = self._error(shown, images)
        total, log = self.losses.total(
            error, shown, shown, images, self.autoencoder.last_layer, engine.progress
        )
        engine.update("autoencoder", total + regularisation)
        if quantised is not None and self.autoencoder.quantizer is not None:
            observe(self.autoencoder.quantizer, q.mean.detach(), quantised.tokens, batch, engine)
        log |= self.losses.discriminate(shown, images, engine)
        return {"reconstruction": error, **name, **log}

    def _error(self, shown: Tensor, images: Tensor) -> Tensor:
        """Return the mean absolute or squared error of reconstructions."""
        difference = shown - images
        l1 = self.config.losses.reconstruction == "l1"
        return difference.abs().mean() if l1 else difference.square().mean()

    def validation(self, batch: Batch, engine: Engine) -> Losses:
        """Compute the error of the reconstruction, without noise on the latents.

        The codebook and the discriminator stay as they are.
        """
        shown = self.autoencoder.decode(self.autoencoder.encode(batch.images))
        return {"reconstruction": self._error(shown, batch.images)}

    @torch.no_grad()
    def preview(self, batch: Batch) -> Tensor:
        """Pair each image with its reconstruction.

        Args:
            batch: A batch of B images.

        Returns:
            Images (2 B, 3, H, W): image 0, its reconstruction, image 1, and so on.
        """
        reconstructions = self.autoencoder.decode(self.autoencoder.encode(batch.images))
        return torch.stack([batch.images, reconstructions], 1).flatten(0, 1)

    @torch.no_grad()
    def finish(self, batches: Callable[[], Batch]) -> None:
        """Measure how to whiten the latents, since diffusion needs about unit variance.

        Stable Diffusion has one factor for this, 0.18215.

        Args:
            batches: Returns the next batch of training images. It is called until 512 images are
                encoded.
        """
        raw: list[Tensor] = []
        while sum(map(len, raw)) < MEASURED:
            raw.append(self.autoencoder.posterior(batches().images).mode())
        self.autoencoder.measure(torch.cat(raw))
