"""Settings of the autoencoder whose latents a latent diffusion model works on."""

from __future__ import annotations

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config


class AutoencoderConfig(Config):
    """Settings of an autoencoder, diffusers' AutoencoderKL, and of its training.

    Space-to-depth (`patch`) may precede it.
    """

    weights: str | None = Field(None, min_length=1)
    """A pretrained autoencoder: a folder in diffusers' layout, or a name on the Hugging Face hub.
    None: a new one, which is trained. A pretrained one is not trained, its latents are scaled by
    its own factor, and the settings below describe it; their defaults are Stable Diffusion's."""

    patch: int = Field(1, ge=1)
    """Side of the squares, in pixels, that become channels before the first convolution
    (space-to-depth). 1: off."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    """Channels of each level. Each level after the first has half the resolution of the one before.
    """

    layers: int = Field(2, ge=1, le=MOST_LAYERS)
    """Residual blocks in each level."""

    latent_channels: int = Field(4, ge=1)
    """Channels of the latents."""

    attention: bool = True
    """Whether the middle block has self-attention."""

    groups: int = Field(32, ge=1)
    """Groups in each group normalisation."""

    kl_weight: float = Field(1e-6, ge=0)
    """Weight of the KL term. It is averaged over latent values, as the reconstruction error is over
    pixels."""

    lr: float = Field(4.5e-6, gt=0)
    """Learning rate of Adam for the autoencoder."""

    betas: tuple[float, float] = (0.5, 0.9)
    """Adam's two decay rates for the autoencoder."""

    batch_size: int | None = Field(None, ge=1)
    """Images in one step of the autoencoder's stage. None: the model's batch_size. Small
    autoencoders learn faster from many small steps."""

    first_logvar: float = 0.0
    """Log variance of the posterior at the start of training. If it is far below 0, noise does not
    drown the first gradients."""

    share: float = Field(0.2, gt=0, lt=1)
    """Share of the training budget that the autoencoder's stage takes, between 0 and 1."""

    @model_validator(mode="after")
    def _whole(self) -> AutoencoderConfig:
        if self.weights and self.patch != 1:
            raise ValueError(
                "an autoencoder that comes with its weights takes images as they are: set patch=1"
            )
        return self

    @property
    def reduction(self) -> int:
        """How many times smaller than the image the latents are, in height and in width."""
        return self.patch << (len(self.channels) - 1)
