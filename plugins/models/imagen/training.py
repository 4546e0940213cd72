"""Training of Imagen: one stage for each part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Networks, Stage, Trainer
from t2i.plugins.common.cascades.config import PartConfig
from t2i.plugins.common.cascades.training import UpsamplerTrainer, part_stage
from t2i.plugins.common.diffusion.training import DenoisingTrainer
from t2i.plugins.models.imagen.config import BasePart, ImagenConfig, SuperPart


def stages(config: ImagenConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return a stage for each part, which have the names of the parts.

    A text encoder that can be trained is trained with the base model.

    Args:
        config: The model's settings.
        text_encoder: Not used here.

    Returns:
        The stages.
    """
    return [part_stage(name, part, _trainer(part)) for name, part in config.parts.items()]


def _trainer(part: PartConfig) -> Callable[[Networks], Trainer]:
    """Return what makes the trainer of a part."""
    if isinstance(part, SuperPart):
        return lambda networks: UpsamplerTrainer(part, networks, text=False)
    assert isinstance(part, BasePart)
    return lambda networks: DenoisingTrainer(part, networks)
