"""Settings of Imagen: a base model and one or two upsamplers. This module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config, ModelConfig, Preset
from t2i.plugins.common.cascades.config import (
    SMALL_UPSAMPLER,
    PartConfig,
    PixelPart,
    UpsamplerPart,
    with_sizes,
)
from t2i.plugins.common.cascades.sizing import sized_cascade
from t2i.plugins.common.diffusion.adm.config import AdmConfig
from t2i.plugins.common.diffusion.config import (
    HELD,
    MAPPED_UNET,
    QUICK_TRAINING,
    SHAPES_TEXT,
    SMALL_UNET,
)

EfficientAttention = Literal["none", "text", "both"]


class EfficientConfig(Config):
    """Settings of the Efficient U-Net. The defaults are those of the paper's upsampler to 256."""

    channels: tuple[int, ...] = Field((128, 256, 512, 1024), min_length=1)
    """Channels of each level. Every level, the first one too, has half the resolution before."""

    blocks: tuple[int, ...] = (2, 4, 8, 8)
    """Residual blocks of each level, on the way down and again on the way up."""

    attention: tuple[EfficientAttention, ...] = ("none", "none", "none", "both")
    """What the places of each level attend to after its residual blocks: "none"; "text"; or "both",
    the text and each other."""

    heads: int = Field(8, ge=1)
    """Attention heads."""

    groups: int = Field(32, ge=1)
    """Groups in each group normalisation."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout rate in residual blocks, 0 to below 1."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        levels = len(self.channels)
        for name, given in (("blocks", self.blocks), ("attention", self.attention)):
            if len(given) != levels:
                raise ValueError(f"{name} has {len(given)} levels, channels {levels}")
        if any(not 1 <= count <= MOST_LAYERS for count in self.blocks):
            raise ValueError(f"blocks: 1 to {MOST_LAYERS} in each level")
        for width, attends in zip(self.channels, self.attention, strict=True):
            if width < 1 or width % self.groups:
                raise ValueError(f"{width} channels cannot be divided into {self.groups} groups")
            if attends != "none" and width % self.heads:
                raise ValueError(f"{width} channels cannot be divided into {self.heads} heads")
        return self

    @property
    def step(self) -> int:
        """Height and width of the input may be any multiples of it: what all levels halve."""
        return int(2 ** len(self.channels))


class ReadingConfig(Config):
    """How the papers' networks read the words of a caption."""

    text_width: int = Field(0, ge=0)
    """Width to which words are projected before attention reads them. 0: they are not projected.

    Not read by the small networks (`unet`)."""

    pool_heads: int = Field(8, ge=1)
    """Heads of the attention that pools all words to the vector which joins the time embedding.

    Not read by the small networks (`unet`)."""


class BasePart(PixelPart, ReadingConfig):
    """Settings of the base model."""

    adm: AdmConfig | None = None
    """ADM's U-Net, as in the paper. Its `encoder_kv` is the width of the words that it reads. None:
    `unet` behind patches."""

    @model_validator(mode="after")
    def _learns(self) -> Self:
        if self.learned_range and self.adm is None:
            raise ValueError("learned_range needs a network with twice the channels: set adm")
        return self

    @property
    def uses_unet(self) -> bool:
        return self.adm is None


class SuperPart(UpsamplerPart, ReadingConfig):
    """Settings of an upsampler."""

    efficient: EfficientConfig | None = None
    """The Efficient U-Net, as in the paper. None: `adm`, or `unet` behind patches."""

    @model_validator(mode="after")
    def _one_network(self) -> Self:
        if self.efficient is None:
            return self
        if self.adm is not None:
            raise ValueError("adm and efficient are two networks: set one of them to null")
        if self.image_size % self.efficient.step or (self.crop or 0) % self.efficient.step:
            raise ValueError(
                f"image_size ({self.image_size}) and crop must be multiples of "
                f"{self.efficient.step} for this network"
            )
        return self

    @property
    def uses_unet(self) -> bool:
        return self.adm is None and self.efficient is None


class ImagenConfig(ModelConfig):
    """Settings of Imagen."""

    base: BasePart = BasePart(image_size=64)
    """The base model, which draws the smallest images."""

    upsampler: SuperPart = SuperPart(image_size=256, low_size=64, efficient=EfficientConfig())
    """The upsampler of the base model's images."""

    upsampler2: SuperPart | None = None
    """The upsampler of the images of `upsampler`. None: there is none."""

    @model_validator(mode="before")
    @classmethod
    def _sizes(cls, settings: Any) -> Any:
        return with_sizes(settings, "base")

    @model_validator(mode="after")
    def _chain(self) -> Self:
        size, last = self.base.image_size, "base"
        for name, part in self.parts.items():
            if isinstance(part, SuperPart):
                if part.low_size != size:
                    raise ValueError(
                        f"{name}.low_size ({part.low_size}) must be {last}.image_size ({size})"
                    )
                size, last = part.image_size, name
        if size != self.image_size:
            raise ValueError(f"{last}.image_size ({size}) must be image_size ({self.image_size})")
        return self

    @property
    def parts(self) -> Mapping[str, PartConfig]:
        """The parts by name, in the order in which they are sampled."""
        first: dict[str, PartConfig] = {"base": self.base, "upsampler": self.upsampler}
        return first if self.upsampler2 is None else {**first, "upsampler2": self.upsampler2}

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=_sampler(FEW)),
            "shapes": Preset(
                SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=_sampler(FEW)
            ),
            "imagen": Preset(PAPER, data=("coco", {}), encoder=("t5", XXL), sampler=_sampler(MANY)),
            "if": Preset(IF, data=("coco", {}), encoder=("t5", IF_TEXT), sampler=_sampler(IF_MANY)),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = sized_cascade(TINY, "base", size, memory)
        return Preset(settings, encoder=("words", {"layers": 1}), sampler=_sampler(FEW))


def _sampler(parts: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the sampler of a preset."""
    return "cascade", {"samplers": dict(parts)}


FEW: dict[str, Any] = {
    "base": {"name": "ddim", "steps": 8, "guidance": 2.0},
    "upsampler": {"name": "ddim", "steps": 4},
}
"""The samplers of small networks."""

# Dynamic thresholding as in the paper (section 2.3): the 99.5th percentile, without a bound.
PERCENTILE = {"threshold": 0.995}

# Guidance of the paper's FID; 256 steps are its default for the base model.
MANY: dict[str, Any] = {
    "base": {"name": "ddpm", "steps": 256, "guidance": 1.35, **PERCENTILE},
    "upsampler": {"name": "ddpm", "steps": 128, "guidance": 8.0, **PERCENTILE},
    "upsampler2": {"name": "ddpm", "steps": 64, "guidance": 1.0, **PERCENTILE},
}

IF_MANY: dict[str, Any] = {
    "base": {
        "name": "ddpm", "steps": 100, "spacing": "leading", "guidance": 7.0, "variance": "learned",
        "threshold": 0.95, "threshold_cap": 1.5,
    },
    "upsampler": {
        "name": "ddpm", "steps": 50, "spacing": "leading", "guidance": 4.0, "variance": "learned",
        "threshold": 0.95, "threshold_cap": 1.0,
    },
}  # fmt: skip
"""DeepFloyd IF's two stages on pixels. A cap of 1 is plain clipping."""

XXL = {"weights": "google/flan-t5-xxl", "length": 256}
IF_TEXT = {"weights": "google/flan-t5-xxl", "length": 77, "padding": "encoded", "lower": True}
XXL_WIDTH = 4096

SMALL_BASE: dict[str, Any] = {
    "share": 0.7, "schedule": "cosine", "prediction": "sample", "error": "x_0",
    "min_snr_gamma": 5.0, "patch": 2, "unet": SMALL_UNET,
}  # fmt: skip

LEARNING = {"lr": 1.5e-3, "lr_text": 1e-4, "betas": (0.9, 0.99)}
HELD_TRAINING = {key: value for key, value in HELD.items() if key != "lr"}

TINY: dict[str, Any] = {
    **{key: value for key, value in QUICK_TRAINING.items() if key not in LEARNING},
    "base": {**SMALL_BASE, **LEARNING},
    "upsampler": {**SMALL_UPSAMPLER, **LEARNING, "share": 0.3},
}

SHAPES: dict[str, Any] = {
    **TINY,
    **HELD_TRAINING,
    "base": {**TINY["base"], "lr": HELD["lr"], "unet": MAPPED_UNET},
    "upsampler": {**TINY["upsampler"], "lr": HELD["lr"]},
}

_LARGE: dict[str, Any] = {
    "steps": 7_500_000, "batch_size": 2048, "accumulate": 128, "warmup": 10_000,
    "ema_decay": 0.9999, "sample_every": 5000, "checkpoint_every": 5000,
}  # fmt: skip

# Section 3 and appendix F of the paper: 2B, 600M and 400M parameters, 2.5M steps each.
PAPER: dict[str, Any] = {
    **_LARGE,
    "image_size": 1024,
    "base": {
        "image_size": 64, "schedule": "cosine", "lr": 1e-4, "caption_dropout": 0.1,
        "adm": {
            "base": 512, "multipliers": (1, 2, 3, 4), "blocks": 3, "encoder_kv": XXL_WIDTH,
        },
        "pool_heads": 64,
    },
    "upsampler": {
        "image_size": 256, "low_size": 64, "schedule": "cosine", "lr": 1e-4, "augmentation": 1.0,
        "augmentation_sampling": 0.1, "efficient": {}, "pool_heads": 64,
    },
    "upsampler2": {
        "image_size": 1024, "low_size": 256, "crop": 256, "schedule": "linear", "lr": 1e-4,
        "augmentation": 1.0, "augmentation_sampling": 0.1, "augmentation_schedule": "linear",
        "efficient": {"attention": ("none", "none", "none", "text")}, "pool_heads": 64,
    },
}  # fmt: skip

# DeepFloyd IF's two stages on pixels, IF-I-XL and IF-II-L (its README and configurations).
IF: dict[str, Any] = {
    **_LARGE,
    "image_size": 256,
    "steps": 4_840_000,
    "batch_size": 3072,
    "accumulate": 192,
    "base": {
        "image_size": 64, "schedule": "cosine", "lr": 1e-4, "learned_range": True,
        "text_width": 2816, "pool_heads": 64,
        "adm": {
            "base": 704, "multipliers": (1, 2, 3, 4), "blocks": 3, "encoder_kv": 2816,
            "encoder_norm": True, "activation": "gelu",
        },
    },
    "upsampler": {
        "image_size": 256, "low_size": 64, "schedule": "cosine", "lr": 1e-4, "learned_range": True,
        "resize": "corners", "augmentation": 1.0, "augmentation_sampling": 0.25,
        "text_width": 1280, "pool_heads": 64,
        "adm": {
            "base": 160, "multipliers": (1, 2, 4, 6, 8), "blocks": (2, 2, 3, 5, 5),
            "attention": (32, 16), "encoder_kv": 1280, "encoder_norm": True, "activation": "gelu",
            "skip_scale": 0.7071,
        },
    },
}  # fmt: skip
