"""Settings of EDM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config, Preset
from t2i.plugins.common.diffusion.config import (
    HELD,
    QUICK_TRAINING,
    SHAPES_LATENTS,
    SHAPES_TEXT,
    SMALL_UNET,
    WIDE,
    PixelConfig,
    SpaceConfig,
    quick_pixels,
    wide_pixels,
)

Preconditioning = Literal["edm", "vp", "ve", "iddpm"]


class AuthorsConfig(Config):
    """Settings of the U-Nets of the paper's code."""

    kind: Literal["ddpmpp", "ncsnpp", "adm"] = "ddpmpp"
    """Network: the paper's reimplementation of DDPM++ ("ddpmpp") or NCSN++ ("ncsnpp") of Song et
    al. 2021, or of ADM ("adm", Dhariwal & Nichol 2021)."""

    channels: int = Field(128, ge=2)
    """Channels, which `multipliers` multiply. An even number."""

    multipliers: tuple[Annotated[int, Field(ge=1)], ...] = Field((2, 2, 2), min_length=1)
    """Factor of the channels in each level. Each level after the first has half the resolution."""

    blocks: int = Field(4, ge=1, le=MOST_LAYERS)
    """Residual blocks in each level of the encoder; the decoder has one more."""

    attention: tuple[int, ...] = (16,)
    """Resolutions in pixels at which blocks attend to the places of the image."""

    dropout: float = Field(0.13, ge=0, lt=1)
    """Dropout rate in residual blocks, 0 to below 1."""

    @model_validator(mode="after")
    def _even(self) -> Self:
        if self.channels % 2:
            raise ValueError(f"channels ({self.channels}) must be even")
        return self


class EDMConfig(SpaceConfig, PixelConfig):
    """Settings of EDM."""

    preconditioning: Preconditioning = "edm"
    """Scalings of the network's input and output, with the noise levels and weights of training
    that belong to them (Karras et al. 2022, table 1). "edm": the paper's own; "vp", "ve": those of
    Song et al. 2021; "iddpm": that of Nichol & Dhariwal 2021, whose network also predicts a
    variance that is not read."""

    sigma_data: float = Field(0.5, gt=0)
    """Standard deviation of the values of the images, in [-1, 1], which "edm" assumes."""

    sigma_skip: float | None = Field(None, gt=0)
    """Noise level below which "edm" adds the noisy image to the network's output: c_skip =
    sigma_skip^2 / (sigma^2 + sigma_skip^2). None: `sigma_data`, as in the paper. With a smaller one
    the network predicts x_0 at most noise levels, so that it need not pass the noise on."""

    weight_cap: float | None = Field(None, gt=0)
    """Upper bound of the weight of the loss of "edm", as a multiple of that of pure noise, 1 /
    sigma_data^2. None: no bound, as in the paper."""

    p_mean: float = -1.2
    """Mean of ln(sigma) in the training of "edm"."""

    p_std: float = Field(1.2, gt=0)
    """Standard deviation of ln(sigma) in the training of "edm"."""

    sigma_min: float = Field(0.002, gt=0)
    """Lowest noise level of sampling."""

    sigma_max: float = Field(80.0, gt=0)
    """Highest noise level of sampling."""

    network: AuthorsConfig | None = None
    """A U-Net of the paper's code, which gets the sentence in the place of a class. None: `unet`
    behind patches."""

    classes: tuple[str, ...] = ()
    """Names of the classes of imported weights. A caption is then the name of a class, and no
    caption is no class. Only with `network`. Empty: captions are text."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min ({self.sigma_min}) must be below sigma_max")
        if self.network is None:
            if self.classes:
                raise ValueError("classes: only the networks of the paper's code read classes")
            if self.preconditioning == "iddpm":
                raise ValueError("preconditioning=iddpm needs a network with twice the channels")
            return self
        if self.autoencoder is not None:
            raise ValueError("autoencoder: the networks of the paper's code work on pixels")
        smallest = 2 ** (len(self.network.multipliers) - 1)
        if self.image_size % smallest:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {smallest} for this network"
            )
        return self

    @property
    def uses_unet(self) -> bool:
        return self.network is None

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=FEW),
            "cifar": Preset(CIFAR, encoder=("words", {}), sampler=(HEUN, {"steps": 18})),
            "imagenet64": Preset(
                IMAGENET64, data=("coco", {}), encoder=("clip", {}), sampler=(HEUN, CHURN)
            ),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=FEW),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = {**TINY, **quick_pixels(size)} if memory is None else _wide(size, memory)
        return Preset(
            {**settings, "image_size": size}, encoder=("words", {"layers": 1}), sampler=FEW
        )


HEUN = "edm-heun"
"""Registry name of the paper's sampler (algorithm 2)."""

FEW = ("ddim", {"steps": 16, "guidance": 2.0})
"""Sampler of the small presets."""

CHURN = {"steps": 256, "churn": 40.0, "s_min": 0.05, "s_max": 50.0, "s_noise": 1.003}
"""The paper's stochastic sampling of ImageNet at 64 px (table 5)."""

# Noise levels and weights are those of `ddpm`'s small presets: a cosine schedule draws ln(sigma)
# with mean 0 and standard deviation pi / 2. The text decides where the noise is strong.
TINY: dict[str, Any] = {
    **QUICK_TRAINING,
    "patch": 4,
    "unet": SMALL_UNET,
    "sigma_data": 0.74,
    "sigma_skip": 0.1,
    "weight_cap": 5.0,
    "p_mean": 0.2,
    "p_std": 1.5,
    "sigma_min": 0.02,
}

# On latents of unit variance. The paper's c_skip then makes the network predict v, and the weights
# are those of `ldm`.
SHAPES: dict[str, Any] = {
    **TINY, **HELD, **SHAPES_LATENTS, "sigma_data": 1.0, "sigma_skip": None,
}  # fmt: skip

# Tables 6 and 7 of the paper, and its code's defaults: 200 million images, a warm-up of 10 million,
# averages with a half-life of 0.5 million images.
CIFAR: dict[str, Any] = {
    "image_size": 32,
    "steps": 390_625,
    "batch_size": 512,
    "accumulate": 8,
    "ema_decay": 0.5 ** (512 / 500_000),
    "ema_rampup": 0.05,
    "warmup": 19_531,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "lr": 1e-3,
    "lr_text": 1e-4,
    "network": {},
}

# ADM's network for ImageNet at 64 px: 2,500 million images.
IMAGENET64: dict[str, Any] = {
    "image_size": 64,
    "steps": 610_352,
    "batch_size": 4096,
    "accumulate": 64,
    "ema_decay": 0.5 ** (4096 / 50_000_000),
    "ema_rampup": 0.05,
    "warmup": 2441,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "lr": 1e-4,
    "network": {
        "kind": "adm", "channels": 192, "multipliers": (1, 2, 3, 4), "blocks": 3,
        "attention": (32, 16, 8), "dropout": 0.1,
    },
}  # fmt: skip


def _wide(size: int, memory: int) -> dict[str, Any]:
    """Return the settings of the preset `auto` on an accelerator."""
    wide = wide_pixels(size, memory)
    own = {"sigma_skip": None, "weight_cap": None} if wide["patch"] <= 2 else {}
    return {**TINY, **WIDE, **own, **wide}
