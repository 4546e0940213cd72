"""Settings of the autoencoder whose latents latent diffusion is trained on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from t2i.core.settings import MOST_LAYERS, Config
from t2i.plugins.common.tokens.tokenizer_config import AdversarialConfig, QuantizerConfig


class AutoencoderLosses(AdversarialConfig):
    """Terms of the autoencoder's loss beside the regularisation of its latents."""

    reconstruction: Literal["l1", "l2"] = "l2"
    """The error of the reconstruction, a mean over all values: "l1" (as in the paper's code) or
    "l2"."""


class CodebookConfig(Config):
    """The codebook of the VQ regularisation."""

    vocabulary: int = Field(8192, ge=1, le=1 << 24)
    """Number of vectors, of as many channels as latents have."""

    quantizer: QuantizerConfig = QuantizerConfig(legacy=True)
    """How the nearest vector is learned: `kind` "codebook" or "ema"."""

    @field_validator("quantizer")
    @classmethod
    def _nearest(cls, quantizer: QuantizerConfig) -> QuantizerConfig:
        if quantizer.kind == "gumbel":
            raise ValueError('latents become their nearest vectors: kind "codebook" or "ema"')
        return quantizer


class AutoencoderConfig(Config):
    """Settings of the autoencoder and of its training.

    The autoencoder is a space-to-depth (`patch`) followed by diffusers' AutoencoderKL.
    """

    weights: str | None = Field(None, min_length=1)
    """Pretrained autoencoder: a folder in diffusers' layout, a hub name, or a name of weights that
    a data set ships, such as shapes-autoencoder. It is not trained, and its own factor scales the
    latents. `patch`, `channels` and `latent_channels` must describe it (the defaults are Stable
    Diffusion's). None: an autoencoder of the settings below is trained."""

    patch: int = Field(1, ge=1)
    """Side, in pixels, of the squares that become channels before the convolutions
    (space-to-depth). 1 turns this off."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    """Channels of each level. Each level after the first is half the size of the one before it."""

    layers: int = Field(2, ge=1, le=MOST_LAYERS)
    """Residual blocks in each level."""

    latent_channels: int = Field(4, ge=1)
    """Channels of the latents."""

    attention: bool = True
    """Whether the middle block has self-attention."""

    groups: int = Field(32, ge=1)
    """Groups in each group normalisation."""

    regularisation: Literal["kl", "vq"] = "kl"
    """What keeps latents in bounds: "kl", a term of the loss, or "vq": the decoder replaces each
    latent vector by the nearest one of a codebook."""

    codebook: CodebookConfig = CodebookConfig()
    """The codebook of the regularisation "vq"."""

    losses: AutoencoderLosses = AutoencoderLosses()
    """Terms of the loss beside the regularisation."""

    kl_weight: float = Field(1e-6, ge=0)
    """Weight of the KL term. The term is averaged over latent values, the reconstruction error over
    pixels."""

    lr: float = Field(4.5e-6, gt=0)
    """Learning rate of Adam for the autoencoder."""

    betas: tuple[float, float] = (0.5, 0.9)
    """Adam's two decay rates for the autoencoder."""

    batch_size: int | None = Field(None, ge=1)
    """Images in one step of this stage. None: the model's batch size. Small autoencoders learn
    faster from many small steps."""

    first_logvar: float = 0.0
    """Initial log variance of the posterior. Far below 0, noise does not drown the first
    gradients."""

    share: float = Field(0.2, gt=0, lt=1)
    """Share of the whole training budget for this stage. Between 0 and 1."""

    @property
    def reduction(self) -> int:
        """Ratio of the image's height to the latents' height; the same for the width."""
        return self.patch << (len(self.channels) - 1)
