"""Settings of the model `upsampler`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from t2i.core.settings import Preset
from t2i.plugins.common.cascades.config import SMALL_UPSAMPLER, UpsamplerSettings, low_side
from t2i.plugins.common.cascades.sizing import upsampler_network
from t2i.plugins.common.diffusion.config import (
    HELD,
    QUICK_TRAINING,
    SHAPES_TEXT,
    WIDE,
    DenoisingConfig,
    PixelConfig,
    quick_batch,
)


class UpsamplerConfig(UpsamplerSettings, PixelConfig, DenoisingConfig):
    """Settings of an upsampler that is trained alone."""

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=FEW),
            **{
                name: Preset(
                    settings,
                    data=("coco", {}),
                    encoder=("clip", {}),
                    sampler=("ddim", {"steps": 27}),
                )
                for name, settings in PAPERS.items()
            },
            "shapes": Preset(
                {**TINY, **HELD}, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=FEW
            ),
            "shapes64": Preset(
                {**TINY, **HELD, **LARGER}, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=FEW
            ),
        }

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset:
        engine = {"batch_size": quick_batch(size)} if memory is None else WIDE
        network = upsampler_network(size, memory)
        return Preset(
            {**TINY, **engine, **network, "image_size": size, "low_size": low_side(size)},
            encoder=("words", {"layers": 1}),
            sampler=FEW,
        )


FEW = ("ddim", {"steps": 8})
"""The sampler of the small presets."""

TINY = {**QUICK_TRAINING, **SMALL_UPSAMPLER}

LARGER: dict[str, Any] = {
    "image_size": 64, "low_size": 32, "batch_size": 16, "patch": 4,
    "unet": {**SMALL_UPSAMPLER["unet"], "channels": (64, 128)},
}  # fmt: skip
"""From 32 pixels, which the presets `shapes` of all other models sample, to 64."""

PAPERS = {
    # GLIDE's upsampler (Nichol et al. 2022), with the noise of Imagen's (Saharia et al. 2022).
    "up256": {
        "image_size": 256, "low_size": 64, "steps": 1_600_000, "batch_size": 512, "accumulate": 64,
        "ema_decay": 0.9999, "sample_every": 5000, "checkpoint_every": 5000, "lr": 1e-4,
        "schedule": "cosine", "augmentation": 1.0, "augmentation_sampling": 0.1,
        "adm": {"base": 192, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2},
    },
    # DALL-E 2's second upsampler (Ramesh et al. 2022): no text, no attention, a quarter as crops.
    "up1024": {
        "image_size": 1024, "low_size": 256, "crop": 256, "text": False, "steps": 1_000_000,
        "batch_size": 512, "accumulate": 64, "ema_decay": 0.9999, "sample_every": 5000,
        "checkpoint_every": 5000, "lr": 1e-4, "schedule": "linear", "augmentation": 1.0,
        "augmentation_sampling": 0.1,
        "adm": {"base": 192, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attention": ()},
    },
}  # fmt: skip
