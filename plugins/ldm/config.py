"""Settings of the latent diffusion model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from t2i.core.config import Config, ModelConfig, Preset


class AutoencoderConfig(Config):
    """Of stage 1, a diffusers AutoencoderKL behind a space-to-depth of `patch` pixels a side.

    channels: of each level, each after the first at half the size. layers: residual blocks a level. attention: in the
    middle. kl_weight: of the KL term, averaged over latent values like the reconstruction over pixels. lr, betas:
    Adam's. batch_size: of its steps (None: the model's); small autoencoders learn faster from many small steps.
    first_logvar: where the posterior's log variance starts; far below 0, so that noise does not drown the first
    gradients. share: of the whole training budget.
    """

    patch: int = Field(1, ge=1)
    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = Field(2, ge=1)
    latent_channels: int = Field(4, ge=1)
    attention: bool = True
    groups: int = Field(32, ge=1)
    kl_weight: float = Field(1e-6, ge=0)
    lr: float = Field(4.5e-6, gt=0)
    betas: tuple[float, float] = (0.5, 0.9)
    batch_size: int | None = Field(None, ge=1)
    first_logvar: float = 0.0
    share: float = Field(0.2, gt=0, lt=1)

    @property
    def reduction(self) -> int:
        """How many times smaller than the picture the latents are, a side."""
        return self.patch << (len(self.channels) - 1)


class UNetConfig(Config):
    """Of stage 2, a diffusers UNet2DConditionModel.

    channels: of each level. layers: residual blocks a level. cross_attention: for each level, whether its blocks attend
    to themselves and to the words (thesis 2.33). head_width: channels of one attention head.
    text_map: channels of a spatial map of the sentence that joins the latents at the stem (0: none). It tells a small
    network where things belong, which cross-attention alone learns late: its queries do not know where they are.
    sentence: whether the sentence is added to the time embedding (as GLIDE does).
    """

    channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers: int = Field(2, ge=1)
    cross_attention: tuple[bool, ...] = (True, True, True, False)
    head_width: int = Field(64, ge=1)
    groups: int = Field(32, ge=1)
    text_map: int = Field(0, ge=0)
    sentence: bool = False

    @model_validator(mode="after")
    def _levels_agree(self) -> UNetConfig:
        if len(self.cross_attention) != len(self.channels):
            raise ValueError(f"cross_attention has {len(self.cross_attention)} levels, channels {len(self.channels)}")
        return self


class LDMConfig(ModelConfig):
    """Settings of both stages. schedule, timesteps, prediction: of the diffusion. error: whether the squared error is
    that of the prediction or that of the x_0 it implies, which with v weighs a step by sigma^2: most where the noise is
    strong and the text decides. caption_dropout: share of captions that are dropped, for classifier-free guidance.
    lr, betas: Adam's, of stage 2; lr_text: of a text encoder that is trained with it, which wants a smaller one than a
    U-Net."""

    autoencoder: AutoencoderConfig = AutoencoderConfig()
    unet: UNetConfig = UNetConfig()
    schedule: Literal["linear", "scaled_linear", "cosine"] = "scaled_linear"
    timesteps: int = Field(1000, ge=1)
    prediction: Literal["epsilon", "sample", "v"] = "epsilon"
    error: Literal["prediction", "x_0"] = "prediction"
    caption_dropout: float = Field(0.1, ge=0, le=1)
    lr: float = Field(1e-4, gt=0)
    lr_text: float = Field(1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)

    @model_validator(mode="after")
    def _sizes_fit(self) -> LDMConfig:
        smallest = self.autoencoder.reduction * 2 ** (len(self.unet.channels) - 1)
        if self.image_size % smallest:
            raise ValueError(f"image_size ({self.image_size}) must be a multiple of {smallest} for these networks")
        return self

    @property
    def latent_size(self) -> int:
        return self.image_size // self.autoencoder.reduction

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=("ddim", {"steps": 25, "guidance": 2.0}))
        }


TINY = {
    "image_size": 32,
    "steps": 6000,
    "batch_size": 24,
    "ema_decay": 0.998,
    "grad_clip": 1.0,
    "warmup": 100,
    "lr_schedule": "cosine",
    "lr_floor": 0.02,
    "sample_every": 1000,
    "checkpoint_every": 1000,
    "channels_last": True,
    "schedule": "cosine",
    "prediction": "v",
    "error": "x_0",
    "lr": 1.5e-3,
    "lr_text": 1e-4,
    "betas": (0.9, 0.99),
    "autoencoder": {
        "patch": 4, "channels": (64,), "layers": 1, "latent_channels": 8, "attention": False, "kl_weight": 3e-5,
        "lr": 3e-3, "betas": (0.9, 0.99), "batch_size": 8, "first_logvar": -6.0, "share": 0.2,
    },
    "unet": {
        "channels": (64, 128), "layers": 1, "cross_attention": (False, False), "head_width": 32, "groups": 8,
        "text_map": 64, "sentence": True,
    },
}  # fmt: skip
