"""Settings of one stage of DeepFloyd IF. This module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Preset
from t2i.plugins.common.diffusion.config import (
    QUICK_TRAINING,
    DenoisingConfig,
    NoiseSchedule,
)
from t2i.plugins.models.imagen.config import IF, IF_MANY, IF_TEXT


class DeepFloydConfig(DenoisingConfig):
    """Settings of one stage of DeepFloyd IF, in the form that diffusers' folders have."""

    weights: str | None = Field(None, min_length=1)
    """The pretrained network: a folder in diffusers' layout, or a name on the Hugging Face hub.

    It brings its own configuration, so that the settings of the network below only describe it.
    None: a new network.
    """

    low_size: int | None = Field(None, ge=4)
    """Height and width of the smaller images that the stage enlarges. None: it is the first."""

    network: tuple[int, ...] = Field((704, 1408, 2112, 2816), min_length=2)
    """Channels of each level of the network."""

    layers: int | tuple[int, ...] = 3
    """Residual blocks of each level of the encoder: one number for all, or one for each."""

    attention: tuple[bool, ...] = (False, True, True, True)
    """Levels in which every residual block is followed by attention to the image and the words."""

    head_width: int = Field(64, ge=1)
    """Channels of one attention head."""

    pool_heads: int = Field(64, ge=1)
    """Heads of the attention that pools the words."""

    words: int | None = Field(None, ge=1)
    """Width to which words are projected. None: the channels of the last level."""

    masked: bool = True
    """Whether attention leaves out the padding of captions. IF's own stages attend to it,
    and pool it."""

    groups: int = Field(32, ge=1)
    """Groups in each group normalisation."""

    skip_scale: float = Field(1.0, gt=0)
    """Factor of the sum in which a residual block ends."""

    augmentation: float = Field(1.0, ge=0, le=1)
    """Largest level of the noise that training adds to the enlarged images, 0 to 1."""

    augmentation_sampling: float = Field(0.25, ge=0, le=1)
    """Level of the noise that sampling adds to the enlarged images, 0 to 1."""

    augmentation_schedule: NoiseSchedule = "cosine"
    """Noise schedule of these levels, with `augmentation_timesteps` steps."""

    augmentation_timesteps: int = Field(1000, ge=1)
    """Number of timesteps of that schedule."""

    learned_range: bool = True
    """Whether the network also predicts the variance of each step, as IF's do."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        levels = len(self.network)
        if len(self.attention) != levels:
            raise ValueError(f"attention has {len(self.attention)} levels, network {levels}")
        layers = self.layers if isinstance(self.layers, tuple) else (self.layers,) * levels
        if len(layers) != levels or any(not 1 <= count <= MOST_LAYERS for count in layers):
            raise ValueError(f"layers: 1 to {MOST_LAYERS} in each of {levels} levels")
        if self.low_size and (self.image_size % self.low_size or self.low_size == self.image_size):
            raise ValueError(
                f"low_size ({self.low_size}) must divide image_size ({self.image_size})"
            )
        if self.image_size % self.step:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of {self.step} for this network"
            )
        return self

    @property
    def step(self) -> int:
        """Height and width of the images may be any multiples of it: what all levels halve."""
        return int(2 ** (len(self.network) - 1))

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=("ddim", {"steps": 8})),
            "xl": Preset(
                FIRST, data=("coco", {}), encoder=("t5", IF_TEXT), sampler=_sampler("base")
            ),
            "super": Preset(
                SECOND, data=("coco", {}), encoder=("t5", IF_TEXT), sampler=_sampler("upsampler")
            ),
        }


def _sampler(part: str) -> tuple[str, dict[str, Any]]:
    """Return the sampler of a part of the cascade as that of a model."""
    return "ddpm", {key: value for key, value in IF_MANY[part].items() if key != "name"}


TINY: dict[str, Any] = {
    **QUICK_TRAINING, "schedule": "cosine", "prediction": "sample", "error": "x_0",
    "min_snr_gamma": 5.0, "lr": 3e-4, "network": (32, 64), "layers": 1,
    "attention": (False, True), "head_width": 16, "pool_heads": 4, "groups": 8,
}  # fmt: skip

_TRAINING: dict[str, Any] = {
    key: value
    for key, value in IF.items()
    if key not in ("base", "upsampler", "image_size", "steps")
}

# IF-I-XL: 2.42M steps.
FIRST: dict[str, Any] = {
    **_TRAINING, "steps": 2_420_000, "image_size": 64, "masked": False,
    "schedule": "cosine", "lr": 1e-4,
}  # fmt: skip

# IF-II-L.
SECOND: dict[str, Any] = {
    **FIRST, "image_size": 256, "low_size": 64, "network": (160, 320, 640, 960, 1280),
    "layers": (2, 2, 3, 5, 5), "attention": (False, False, False, True, True),
    "skip_scale": 0.7071,
}  # fmt: skip
