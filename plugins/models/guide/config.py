"""Settings of the model `guide`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from t2i.core.settings import ModelConfig, Preset
from t2i.plugins.common.diffusion.adm.config import AdmConfig
from t2i.plugins.common.diffusion.config import MOST_TIMESTEPS, NoiseSchedule
from t2i.plugins.common.sizing import by_memory, patch_of

MOST_KEPT = 1_000_000
"""Largest number of captions that can be kept for comparison."""


class GuideConfig(ModelConfig):
    """Settings of a classifier of noisy images."""

    adm: AdmConfig = AdmConfig(base=128)
    """The image network: the encoder half of ADM's U-Net, with attention pooling."""

    patch: int = Field(1, ge=1)
    """Side in pixels of the squares whose pixels become channels of the network's input. 1: off."""

    schedule: NoiseSchedule = "linear"
    """Noise schedule of the training images. That of the guided model need not be the same: the
    guide reads its images at the same ratio of noise to signal."""

    timesteps: int = Field(1000, ge=1, le=MOST_TIMESTEPS)
    """Number of timesteps T of the schedule. Continuous schedules ignore it."""

    classes: tuple[str, ...] = ()
    """Names of the classes, of which every caption is then one: the network is a classifier, as in
    the paper. Empty: captions are text, and the network is a CLIP of noisy images, as in GLIDE."""

    width: int = Field(512, ge=1)
    """Width of the vectors of images and captions that are compared. Not read with `classes`."""

    text_hidden: int = Field(0, ge=0)
    """Width of the hidden layer between a sentence and its vector. 0: the map is linear."""

    compared: int = Field(0, ge=0, le=MOST_KEPT)
    """Number of training captions that are kept with the weights, and that a caption is compared
    with in sampling: log p(y | x_t) is then normalised over them. 0: it is the scaled cosine alone,
    as in GLIDE."""

    against_kept: bool = False
    """Whether an image in training must find its caption among the kept ones too, not only in its
    batch. A small batch seldom has two captions that differ in one word alone, so nothing in it
    asks for that word."""

    lr: float = Field(3e-4, gt=0)
    """Learning rate of AdamW."""

    lr_text: float = Field(1e-4, gt=0)
    """Learning rate of a text encoder that is trained together with the network."""

    weight_decay: float = Field(0.05, ge=0)
    """Weight decay of AdamW."""

    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's two decay rates."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        smallest = self.patch * self.adm.step
        if self.image_size % smallest:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {smallest} for this network"
            )
        if self.adm.encoder_kv:
            raise ValueError("adm.encoder_kv: the classifier of images reads no vectors: set 0")
        return self

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        papers = {
            name: Preset(settings, data=("coco", {}), encoder=("clip", {}))
            for name, settings in ADM.items()
        }
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1})),
            "shapes": Preset(SHAPES, data=("shapes", {}), encoder=SHAPES_TEXT),
            **papers,
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        patch = patch_of(size, 8 if memory is None else 64, 4 if memory is None else 1)
        settings = {**TINY, "image_size": size, "patch": patch}
        if memory is not None:
            base = by_memory(memory, (128, 128, 192, 192))
            settings |= {**WIDE, "adm": {**WIDE["adm"], "base": base}}
        return Preset(settings, encoder=("words", {"layers": 1}))


SHAPES_TEXT = ("words", {"weights": "shapes-clip", "frozen": True})
"""The text encoder of the preset `shapes`: the text half of the CLIP that the data set ships."""

SMALL: dict[str, Any] = {
    "base": 64, "multipliers": (1, 2), "blocks": 1, "attention": (8, 4), "head_width": 32,
}  # fmt: skip

TINY: dict[str, Any] = {
    "image_size": 32,
    "steps": 3000,
    "batch_size": 48,
    "ema_decay": 0.995,
    "grad_clip": 1.0,
    "warmup": 50,
    "lr_schedule": "cosine",
    "lr_floor": 0.02,
    "sample_every": 1000,
    "checkpoint_every": 1000,
    "channels_last": True,
    "schedule": "cosine",
    "patch": 4,
    "adm": SMALL,
    "width": 128,
    "text_hidden": 256,
    "compared": 256,
    "lr": 1e-3,
    "lr_text": 3e-4,
    "weight_decay": 0.01,
    "betas": (0.9, 0.98),
}

# Eight to ten minutes of one core.
SHAPES: dict[str, Any] = {
    **TINY, "compared": 4096, "against_kept": True, "steps": 2500, "batch_size": 64,
    "ema_decay": 0.98, "lr_schedule": "linear",
    "lr_hold": 0.5, "lr": 1.5e-3,
}  # fmt: skip

# Settings of the preset `auto` on an accelerator, laid over TINY.
WIDE: dict[str, Any] = {
    "batch_size": 256, "ema_decay": 0.9995, "warmup": 500, "lr": 3e-4,
    "adm": {"base": 128, "multipliers": (1, 1, 2, 4), "blocks": 2, "attention": (16, 8)},
}  # fmt: skip


def _adm(size: int, steps: int, adm: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return the settings of one of ADM's classifiers: AdamW, to 0 linearly (appendix I)."""
    return {
        "image_size": size, "steps": steps, "batch_size": 256, "accumulate": 8, "ema_decay": 0.0,
        "lr_schedule": "linear", "sample_every": 5000, "checkpoint_every": 5000,
        "adm": {"base": 128, **adm}, **more,
    }  # fmt: skip


# The classifiers of Dhariwal & Nichol 2021 (table 12).
ADM: dict[str, dict[str, Any]] = {
    "adm64": _adm(64, 300_000, {"multipliers": (1, 2, 3, 4), "blocks": 4}, schedule="cosine"),
    "adm128": _adm(128, 300_000, {"multipliers": (1, 1, 2, 3, 4)}),
    "adm256": _adm(256, 500_000, {"multipliers": (1, 1, 2, 2, 4, 4)}),
    "adm512": _adm(512, 500_000, {"multipliers": (0.5, 1, 1, 2, 2, 4, 4)}),
}
