"""Settings of DDPM and of the model `ddim`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import model_validator

from t2i.core.settings import Preset
from t2i.plugins.common.diffusion.adm.config import AdmConfig
from t2i.plugins.common.diffusion.config import (
    HELD,
    MAPPED_UNET,
    QUICK,
    SHAPES_TEXT,
    SMALL_UNET,
    WIDE,
    DenoisingConfig,
    PixelConfig,
    UNetConfig,
    quick_pixels,
    wide_pixels,
)

# The paper's U-Net for CIFAR-10 (appendix B; 35.7M parameters): four levels, attention at 16x16 and
# in the middle.
PAPER = UNetConfig(
    channels=(128, 256, 256, 256), layers=2, attention=("none", "self", "none", "none"),
    middle="self", head_width=None, groups=32, dropout=0.1,
)  # fmt: skip


class DDPMConfig(PixelConfig, DenoisingConfig):
    """Settings of diffusion on pixels."""

    unet: UNetConfig = PAPER
    """The U-Net that denoises images."""

    adm: AdmConfig | None = None
    """ADM's U-Net, in which the sentence takes the place of the class. None: `unet` behind patches.
    """

    classes: tuple[str, ...] = ()
    """Names of the classes of imported weights. A caption is then the name of a class. Only with
    `adm`. Empty: captions are text."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.adm is None:
            if self.classes:
                raise ValueError("classes: only ADM's network (adm) reads classes")
            if self.learned_range:
                raise ValueError("learned_range needs a network with twice the channels: set adm")
            return self
        if self.image_size % self.adm.step:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {self.adm.step} for this "
                "network"
            )
        return self

    @property
    def uses_unet(self) -> bool:
        return self.adm is None

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return presets("ddpm", few=25, many=250, adm=ANCESTRAL)

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        return sized("ddpm", {"steps": 250, "guidance": 2.0}, size, memory)


class DDIMModelConfig(DDPMConfig):
    """Settings of the model `ddim`: those of `ddpm`, with the sampler `ddim` in the presets."""

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return presets("ddim", few=8, many=25, adm=IMPLICIT)

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        return sized("ddim", {"steps": 25, "guidance": 2.0}, size, memory)


ANCESTRAL = {"respacing": "250", "clip": 1.0, "variance": "learned"}
"""ADM's ancestral sampling."""

IMPLICIT = {"respacing": "ddim25", "clip": 1.0, "clipped_eps": True}
"""ADM's sampling with DDIM."""


def presets(sampler: str, few: int, many: int, adm: Mapping[str, Any]) -> Mapping[str, Preset]:
    """Return the presets of a model.

    Args:
        sampler: Registry name of the sampler.
        few: Sampling steps of the small presets. More do not improve their images.
        many: Sampling steps of `coco64`, in which all T steps would take minutes an image.
        adm: Settings of the sampler in ADM's presets.

    Returns:
        The presets by name.
    """
    quick = (sampler, {"steps": few, "guidance": 2.0})
    return {
        "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=quick),
        "cifar": Preset(CIFAR, encoder=("words", {}), sampler=(sampler, {})),
        "coco64": Preset(
            COCO64,
            data=("coco", {}),
            encoder=("clip", {}),
            sampler=(sampler, {"steps": many, "guidance": 3.0}),
        ),
        "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=quick),
        **{
            name: Preset(
                settings, data=("coco", {}), encoder=("clip", {}), sampler=(sampler, dict(adm))
            )
            for name, settings in ADM.items()
        },
    }


# The network predicts x_0: its channels are too few for all the noise in the values of a patch.
PATCHED: dict[str, Any] = {"prediction": "sample", "min_snr_gamma": 5.0}

TINY: dict[str, Any] = {
    **QUICK,
    **PATCHED,
    "patch": 4,
    "unet": SMALL_UNET,
}

SHAPES: dict[str, Any] = {**TINY, **HELD, "unet": MAPPED_UNET}

# Section 4 and appendix B of the paper. The sentence is added to the time embedding, because the
# paper's images have no captions. The paper mirrors its images at random: add augment.flip=true
# where captions do not speak of left and right.
CIFAR = {
    "image_size": 32,
    "steps": 800_000,
    "batch_size": 128,
    "ema_decay": 0.9999,
    "grad_clip": 1.0,
    "warmup": 5000,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "schedule": "linear",
    "lr": 2e-4,
    "lr_text": 2e-4,
    "unet": {**PAPER.model_dump(), "sentence": True},
}

# The network of Nichol & Dhariwal 2021 (arXiv:2102.09672) for ImageNet at 64 px: C, 2C, 3C, 4C
# channels, three residual blocks a level, attention of four heads at 16x16 and 8x8, the cosine
# schedule. Here it also attends to the words.
COCO64 = {
    "image_size": 64,
    "steps": 1_500_000,
    "batch_size": 128,
    "accumulate": 4,
    "ema_decay": 0.9999,
    "sample_every": 5000,
    "checkpoint_every": 5000,
    "schedule": "cosine",
    "lr": 1e-4,
    "unet": {
        "channels": (128, 256, 384, 512), "layers": 3,
        "attention": ("none", "none", "cross", "cross"), "heads": 4, "head_width": None,
        "sentence": True,
    },
}  # fmt: skip


def _adm(size: int, adm: Mapping[str, Any], **training: Any) -> dict[str, Any]:
    """Return the settings of one of ADM's models."""
    return {
        "image_size": size, "batch_size": 256, "accumulate": 32, "ema_decay": 0.9999,
        "sample_every": 5000, "checkpoint_every": 5000, "lr": 1e-4, "schedule": "linear",
        "learned_range": True, "adm": adm, **training,
    }  # fmt: skip


# The models of Dhariwal & Nichol 2021 (table 11): steps, batch and learning rate are the paper's.
ADM: dict[str, dict[str, Any]] = {
    "adm64": _adm(
        64,
        {"base": 192, "multipliers": (1, 2, 3, 4), "blocks": 3, "qkv": "kinds", "dropout": 0.1},
        schedule="cosine", steps=540_000, batch_size=2048, accumulate=64, lr=3e-4,
    ),
    "adm128": _adm(
        128, {"multipliers": (1, 1, 2, 3, 4), "head_width": None, "heads": 4}, steps=4_360_000
    ),
    "adm256": _adm(256, {"multipliers": (1, 1, 2, 2, 4, 4)}, steps=1_980_000),
    "adm512": _adm(
        512, {"multipliers": (0.5, 1, 1, 2, 2, 4, 4)}, steps=1_940_000, accumulate=64
    ),
}  # fmt: skip


def sized(sampler: str, few: Mapping[str, Any], size: int, memory: int | None) -> Preset:
    """Return the preset `auto` of a model.

    Args:
        sampler: Registry name of the sampler.
        few: Settings of the sampler.
        size: Height and width of the images in pixels.
        memory: Memory of the accelerator in bytes. None: the CPU.

    Returns:
        The preset.
    """
    if memory is None:
        settings = {**TINY, **quick_pixels(size)}
    else:
        wide = wide_pixels(size, memory)
        settings = {**QUICK, **WIDE, **(PATCHED if wide["patch"] > 2 else {}), **wide}
    return Preset(
        {**settings, "image_size": size}, encoder=("words", {"layers": 1}), sampler=(sampler, few)
    )
