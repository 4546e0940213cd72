"""Training of an upsampler: one stage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Stage
from t2i.plugins.common.cascades.training import UpsamplerTrainer
from t2i.plugins.models.upsampler.config import UpsamplerConfig


def stages(config: UpsamplerConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the one stage, `upsampler`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. The stage trains it if it is trainable.

    Returns:
        The stage.
    """
    return [Stage("upsampler", 1.0, partial(UpsamplerTrainer, config))]
