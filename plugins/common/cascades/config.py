"""Settings of the parts of cascades, and of upsamplers. This module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from t2i.core.errors import nearest
from t2i.core.settings import Config
from t2i.core.settings.engine import STAGE_SETTINGS
from t2i.plugins.common.diffusion.adm.config import AdmConfig
from t2i.plugins.common.diffusion.config import DenoisingSettings, NoiseSchedule, PixelSettings

Resizing = Literal["bilinear", "corners", "bicubic", "nearest"]
"""How smaller images are enlarged to join the input; "corners" is bilinear with aligned corners."""


class PartConfig(Config):
    """Settings of one part of a cascade: its size, and the stage that trains it."""

    image_size: int = Field(32, ge=4)
    """Height and width of the images of this part in pixels.

    In a cascade of two parts on pixels that leaves it out, it follows from the model's."""

    share: float = Field(1.0, gt=0)
    """Share of the training budget, relative to the sum of all parts' shares."""

    training: Mapping[str, Any] = {}
    """Settings of the training engine that differ in this part's stage, by name, such as
    `batch_size` or `ema_decay`."""

    @field_validator("training")
    @classmethod
    def _known(cls, training: Mapping[str, Any]) -> Mapping[str, Any]:
        for key in training:
            if key not in STAGE_SETTINGS:
                raise ValueError(f"'{key}' is no setting of a stage{nearest(key, STAGE_SETTINGS)}")
        return training


class PixelPart(PartConfig, PixelSettings, DenoisingSettings):
    """Settings of a part that denoises pixels with a U-Net, such as the first one."""


class UpsamplerSettings(PixelSettings, DenoisingSettings):
    """Settings of a diffusion network that enlarges images."""

    low_size: int = Field(16, ge=4)
    """Height and width of the smaller images in pixels, a divisor of `image_size`."""

    adm: AdmConfig | None = None
    """ADM's U-Net, as the papers' upsamplers have it. None: `unet` behind patches."""

    text: bool = True
    """Whether the captions are read too. Without them only the smaller image says what to draw."""

    residual: bool = False
    """Whether the network predicts what the enlarged image lacks. It needs prediction=sample."""

    resize: Resizing = "bilinear"
    """How the smaller image is enlarged to join the input."""

    augmentation: float = Field(0.0, ge=0, le=1)
    """Largest level of the noise that training adds to the smaller images, 0 (none) to 1.

    Levels are uniform up to it, one for each image, and the network is told (Ho et al. 2021)."""

    augmentation_sampling: float = Field(0.0, ge=0, le=1)
    """Level of the noise that sampling adds to the smaller images, 0 (none) to 1."""

    augmentation_schedule: NoiseSchedule = "cosine"
    """Noise schedule of these levels, with `timesteps` steps."""

    crop: int | None = Field(None, ge=4)
    """Height and width in pixels of the random parts of the images that are trained on.

    It is a multiple of image_size / low_size. None: whole images."""

    @model_validator(mode="after")
    def _enlarges(self) -> Self:
        if self.image_size % self.low_size or self.image_size == self.low_size:
            raise ValueError(
                f"low_size ({self.low_size}) must divide image_size ({self.image_size})"
            )
        if self.crop and (self.crop > self.image_size or self.crop % self.ratio_of_sizes):
            raise ValueError(
                f"crop ({self.crop}) must be a multiple of {self.ratio_of_sizes}, "
                f"at most {self.image_size}"
            )
        if self.learned_range and self.adm is None:
            raise ValueError("learned_range needs a network with twice the channels: set adm")
        if self.residual and self.prediction != "sample":
            raise ValueError("residual: the enlarged image is added to x_0: set prediction=sample")
        if self.uses_unet and not self.unet.sentence:
            raise ValueError(
                "the level of noise is told where the sentence is: set unet.sentence=true"
            )
        return self

    @property
    def uses_unet(self) -> bool:
        return self.adm is None

    @property
    def ratio_of_sizes(self) -> int:
        """Ratio of the sides of the enlarged and the smaller images."""
        return self.image_size // self.low_size


class UpsamplerPart(PartConfig, UpsamplerSettings):
    """Settings of an upsampler that is a part of a cascade."""


def low_side(size: int) -> int:
    """Choose the side of the smaller images: a quarter from 256 pixels on, as in the papers.

    Args:
        size: Height and width of the enlarged images in pixels.

    Returns:
        A half or a quarter of it.
    """
    return size // (4 if size >= 256 else 2)


def with_sizes(settings: Any, first: str) -> Any:
    """Add the sizes that the two parts of a cascade leave out: they follow from the model's.

    Args:
        settings: Settings of a cascade, not yet checked.
        first: Name of the part that draws small images. The other part is `upsampler`.

    Returns:
        The settings with `image_size` and `low_size` of these parts. What is set stays. A cascade
        with a third part is returned as it is.
    """
    if not isinstance(settings, Mapping) or settings.get("upsampler2") is not None:
        return settings
    small, large = settings.get(first), settings.get("upsampler")
    size = settings.get("image_size", 32)
    if not (isinstance(small, Mapping) and isinstance(large, Mapping) and isinstance(size, int)):
        return settings
    low = small.get("image_size", low_side(size))
    return {
        **settings,
        first: {"image_size": large.get("low_size", low), **small},
        "upsampler": {"image_size": size, "low_size": low, **large},
    }


SMALL_UPSAMPLER: dict[str, Any] = {
    "schedule": "cosine", "prediction": "sample", "error": "x_0",
    "min_snr_gamma": 5.0, "residual": True, "augmentation": 0.5, "augmentation_sampling": 0.1,
    "patch": 2, "unet": {
        "channels": (48, 96), "layers": 1, "attention": ("none", "none"), "middle": "none",
        "head_width": 16, "groups": 8, "sentence": True,
    },
}  # fmt: skip
"""An upsampler, by itself from 16 to 32 pixels, of the presets `tiny` and `shapes`."""
