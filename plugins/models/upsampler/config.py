"""Settings of the model `upsampler`."""

from __future__ import annotations

from collections.abc import Mapping

from t2i.core.settings import Preset
from t2i.plugins.common.cascades.config import SMALL_UPSAMPLER, UpsamplerSettings
from t2i.plugins.common.diffusion.config import (
    HELD,
    QUICK_TRAINING,
    SHAPES_TEXT,
    DenoisingConfig,
    PixelConfig,
)


class UpsamplerConfig(UpsamplerSettings, PixelConfig, DenoisingConfig):
    """Settings of an upsampler that is trained alone."""

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        return {
            "tiny": Preset(TINY, encoder=("words", {"layers": 1}), sampler=FEW),
            "shapes": Preset(
                {**TINY, **HELD}, data=("shapes", {}), encoder=SHAPES_TEXT, sampler=FEW
            ),
        }


FEW = ("ddim", {"steps": 8})
"""The sampler of the small presets."""

TINY = {**QUICK_TRAINING, **SMALL_UPSAMPLER}
