"""Settings of the autoencoder that latent diffusion runs in the space of."""

from __future__ import annotations

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config


class AutoencoderConfig(Config):
    """A diffusers AutoencoderKL behind a space-to-depth of `patch` pixels a side, and its training."""

    weights: str | None = Field(None, min_length=1)
    """An autoencoder that was trained elsewhere: a folder in diffusers' layout, or a hub name. It is then not trained,
    latents are scaled by its own factor, and the settings below (the defaults are Stable Diffusion's) describe it."""

    patch: int = Field(1, ge=1)
    """Side, in pixels, of the squares that become channels in front of the convolutions. 1: none."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    """Channels of each level. Each level after the first is half the size of the one before."""

    layers: int = Field(2, ge=1, le=MOST_LAYERS)
    """Residual blocks of each level."""

    latent_channels: int = Field(4, ge=1)
    """Channels of the latents."""

    attention: bool = True
    """Whether the middle block attends to itself."""

    groups: int = Field(32, ge=1)
    """Groups of each group normalisation."""

    kl_weight: float = Field(1e-6, ge=0)
    """Weight of the KL term, which is averaged over latent values as the reconstruction is over pixels."""

    lr: float = Field(4.5e-6, gt=0)
    """Learning rate of Adam."""

    betas: tuple[float, float] = (0.5, 0.9)
    """Adam's two decay rates."""

    batch_size: int | None = Field(None, ge=1)
    """Images of one step of this stage (none: the model's). Small autoencoders learn faster from many small steps."""

    first_logvar: float = 0.0
    """The posterior's log variance at the beginning. Far below 0, noise does not drown the first gradients."""

    share: float = Field(0.2, gt=0, lt=1)
    """Share of the whole training budget that this stage takes."""

    @model_validator(mode="after")
    def _whole(self) -> AutoencoderConfig:
        if self.weights and self.patch != 1:
            raise ValueError(
                "an autoencoder that comes with its weights takes images as they are: set patch=1"
            )
        return self

    @property
    def reduction(self) -> int:
        """How many times smaller than the image the latents are, a side."""
        return self.patch << (len(self.channels) - 1)
