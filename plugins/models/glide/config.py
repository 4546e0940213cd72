"""Settings of GLIDE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config, ModelConfig, Preset
from t2i.plugins.common.cascades.config import (
    SMALL_UPSAMPLER,
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


class TransformerConfig(Config):
    """Settings of the text transformer of one part."""

    length: int = Field(128, ge=2, le=4096)
    """Number of places. Shorter captions are padded, longer ones are cut."""

    width: int = Field(512, ge=1)
    """Width of a place, a multiple of `heads`."""

    layers: int = Field(16, ge=1, le=MOST_LAYERS)
    """Number of blocks."""

    heads: int = Field(8, ge=1)
    """Attention heads of each block."""

    tokens: int = Field(50257, ge=0)
    """Number of tokens that have vectors here, those of the text encoder `gpt2`. 0: the words of
    any other text encoder are projected."""

    sentence: bool = False
    """Whether the text encoder's own sentence vector, projected, is added to the output of the last
    place. Not in the paper."""

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self


class TextPart(Config):
    """Settings that both parts have: the transformer that reads the caption."""

    transformer: TransformerConfig = TransformerConfig()
    """The text transformer of this part, trained with its U-Net."""

    lr_transformer: float | None = Field(None, gt=0)
    """Learning rate of Adam for the text transformer. None: `lr`."""

    inpainting: bool = False
    """Whether the U-Net reads the known part of an image too, and a mask of it."""


class GlideBase(TextPart, PixelPart):
    """Settings of the part that draws small images."""

    adm: AdmConfig | None = None
    """ADM's U-Net, as in the paper. Its `encoder_kv` is the transformer's width. None: `unet`
    behind patches."""

    @model_validator(mode="after")
    def _reads(self) -> Self:
        check_part(self, self.adm, self.uses_unet, self.learned_range)
        return self

    @property
    def uses_unet(self) -> bool:
        return self.adm is None


class GlideUpsampler(TextPart, UpsamplerPart):
    """Settings of the part that enlarges images."""

    @model_validator(mode="after")
    def _reads(self) -> Self:
        check_part(self, self.adm, self.uses_unet, self.learned_range)
        if self.adm is not None and self.augmentation:
            raise ValueError("augmentation: GLIDE's U-Net is not told the level: set it to 0")
        return self


def check_part(part: TextPart, adm: AdmConfig | None, small: bool, ranged: bool) -> None:
    """Check that the network of a part fits its transformer.

    Args:
        part: Settings of the part.
        adm: Its U-Net, if that is ADM's.
        small: Whether it has a small U-Net instead.
        ranged: Whether the U-Net predicts variances.

    Raises:
        ValueError: It does not.
    """
    if adm is not None and adm.encoder_kv != part.transformer.width:
        raise ValueError(
            f"adm.encoder_kv ({adm.encoder_kv}) must be transformer.width "
            f"({part.transformer.width})"
        )
    if small and ranged:
        raise ValueError("learned_range needs a network with twice the channels: set adm")
    if small and part.inpainting:
        raise ValueError("inpainting: only ADM's network reads a known part: set adm")


class GlideConfig(ModelConfig):
    """Settings of GLIDE: those of its two parts."""

    image_size: int = Field(32, ge=8)
    """Height and width of the images in pixels, those of the upsampler."""

    base: GlideBase = GlideBase(image_size=16)
    """The part that draws small images."""

    upsampler: GlideUpsampler = GlideUpsampler.model_validate(SMALL_UPSAMPLER)
    """The part that enlarges them."""

    @model_validator(mode="before")
    @classmethod
    def _sizes(cls, settings: Any) -> Any:
        return with_sizes(settings, "base")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.upsampler.image_size != self.image_size:
            raise ValueError(
                f"upsampler.image_size ({self.upsampler.image_size}) must be image_size "
                f"({self.image_size})"
            )
        if self.upsampler.low_size != self.base.image_size:
            raise ValueError(
                f"upsampler.low_size ({self.upsampler.low_size}) must be base.image_size "
                f"({self.base.image_size})"
            )
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=FEW),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=FEW),
            "filtered": Preset(
                FILTERED, data=("coco", {}), encoder=("gpt2", {}), sampler=_public(3.0)
            ),
            "paper": Preset(PAPER, data=("coco", {}), encoder=("gpt2", {}), sampler=_public(3.0)),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        settings = sized_cascade(TINY, "base", size, memory)
        return Preset(settings, encoder=("words", {"layers": 1}), sampler=FEW)


def _public(guidance: float) -> tuple[str, dict[str, Any]]:
    """Return the sampler of the public code: 100 steps with guidance, then 27 without."""
    base = {
        "name": "ddpm", "respacing": "100", "clip": 1.0, "variance": "learned",
        "guidance": guidance,
    }  # fmt: skip
    upsampler = {"name": "ddim", "respacing": "fast27", "clip": 1.0, "clipped_eps": True}
    return "cascade", {"samplers": {"base": base, "upsampler": upsampler}}


FEW = ("cascade", {"samplers": {
    "base": {"name": "ddim", "steps": 25, "guidance": 2.0},
    "upsampler": {"name": "ddim", "steps": 8},
}})  # fmt: skip
"""The sampler of the small presets."""

# A transformer of one block, which learns at a tenth of the U-Net's rate. Its output says little at
# first, so the sentence vector joins it.
READER = {"length": 24, "width": 96, "layers": 1, "heads": 4, "tokens": 0, "sentence": True}

ENGINE = {k: v for k, v in QUICK_TRAINING.items() if k not in ("lr", "lr_text", "betas")}
RATES = {k: v for k, v in QUICK_TRAINING.items() if k in ("lr", "lr_text", "betas")}

# The networks predict x_0: their channels are too few for all the noise in the values of a patch.
SMALL_BASE: dict[str, Any] = {
    "schedule": "cosine", "prediction": "sample", "error": "x_0",
    "min_snr_gamma": 5.0, "patch": 2, "unet": SMALL_UNET, "transformer": READER, "share": 0.7,
    "lr_transformer": 1.5e-4, **RATES,
}  # fmt: skip

TINY: dict[str, Any] = {
    **ENGINE,
    "base": SMALL_BASE,
    "upsampler": {
        **SMALL_UPSAMPLER, "transformer": READER, "share": 0.3, "lr_transformer": 1.5e-4, **RATES,
    },
}  # fmt: skip

_HELD_RATES = {"lr": HELD["lr"], "lr_transformer": 3e-4}

SHAPES: dict[str, Any] = {
    **TINY,
    **{k: v for k, v in HELD.items() if k != "lr"},
    "base": {**SMALL_BASE, **_HELD_RATES, "unet": MAPPED_UNET},
    "upsampler": {**TINY["upsampler"], **_HELD_RATES},
}

CHAIN = {"prediction": "epsilon", "learned_range": True, "lr": 1e-4, "caption_dropout": 0.2}


def _glide(
    base: int, upsampler: int, widths: tuple[int, int], layers: int, steps: tuple[int, int],
    batches: tuple[int, int], heads: int = 64,
) -> dict[str, Any]:  # fmt: skip
    """Return the settings of one of the paper's models.

    Args:
        base: Width of the base network.
        upsampler: Width of the upsampler.
        widths: Widths of both transformers.
        layers: Blocks of each transformer.
        steps: Steps of training of both.
        batches: Batch sizes of both.
        heads: Width of a head of the transformers.
    """
    readers = [{"width": w, "layers": layers, "heads": w // heads} for w in widths]
    return {
        "image_size": 256, "steps": sum(steps), "batch_size": batches[0], "accumulate": 64,
        "ema_decay": 0.9999, "sample_every": 5000, "checkpoint_every": 5000,
        "base": {
            **CHAIN, "image_size": 64, "schedule": "cosine", "transformer": readers[0],
            "share": steps[0],
            "adm": {
                "base": base, "multipliers": (1, 2, 3, 4), "blocks": 3, "dropout": 0.1,
                "encoder_kv": widths[0],
            },
        },
        "upsampler": {
            **CHAIN, "image_size": 256, "low_size": 64, "schedule": "linear",
            "transformer": readers[1], "share": steps[1],
            "training": {"batch_size": batches[1]},
            "adm": {
                "base": upsampler, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "dropout": 0.1,
                "encoder_kv": widths[1],
            },
        },
    }  # fmt: skip


# The released model, of filtered data. Its paper names 1.1M steps and 500K with dropped captions.
FILTERED = _glide(192, 192, (512, 512), 16, (1_600_000, 400_000), (2048, 512))

# The paper's own model, which was not released: 3.5 and 1.5 thousand million parameters.
PAPER = _glide(512, 384, (2048, 1024), 24, (2_500_000, 1_600_000), (2048, 512))
