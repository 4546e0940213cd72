"""Training of DDPM: one stage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Stage
from t2i.plugins.common.diffusion.training import DenoisingTrainer
from t2i.plugins.models.ddpm.config import DDPMConfig


def stages(config: DDPMConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the one stage, `diffusion`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. The stage trains it if it is trainable.

    Returns:
        The stage.
    """
    return [Stage("diffusion", 1.0, partial(DenoisingTrainer, config))]
