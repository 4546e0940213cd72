"""Training of GLIDE: a stage for the base network, and one for the upsampler."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Networks, Stage
from t2i.plugins.common.cascades.training import UpsamplerTrainer, part_stage
from t2i.plugins.common.diffusion.training import DenoisingTrainer, DiffusionTrainer
from t2i.plugins.models.glide.config import GlideBase, GlideConfig, GlideUpsampler


def with_transformer(trainer: DiffusionTrainer, lr: float) -> None:
    """Let a trainer train the part's text transformer too.

    Args:
        trainer: The trainer. Its generator has a module `transformer`.
        lr: Learning rate of the transformer.
    """
    transformer = trainer.generator.get_submodule("transformer")
    assert isinstance(transformer, nn.Module)
    trainer.modules["transformer"] = transformer
    group = {"params": list(transformer.parameters()), "lr": lr}
    trainer.optimizers[trainer.part].add_param_group(group)


class GlideBaseTrainer(DenoisingTrainer):
    """Trains the base network with its text transformer.

    Args:
        config: Settings of the part.
        networks: The part's networks.
    """

    def __init__(self, config: GlideBase, networks: Networks) -> None:
        super().__init__(config, networks)
        with_transformer(self, config.lr_transformer or config.lr)


class GlideUpsamplerTrainer(UpsamplerTrainer):
    """Trains the upsampler with its text transformer, and leaves a text encoder as it is.

    Args:
        config: Settings of the part.
        networks: The part's networks.
    """

    def __init__(self, config: GlideUpsampler, networks: Networks) -> None:
        super().__init__(config, networks, text=False)
        with_transformer(self, config.lr_transformer or config.lr)


def stages(config: GlideConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the stages `base` and `upsampler`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. The first stage trains it if it is trainable.

    Returns:
        The stages.
    """
    return [
        part_stage("base", config.base, partial(GlideBaseTrainer, config.base)),
        part_stage("upsampler", config.upsampler, partial(GlideUpsamplerTrainer, config.upsampler)),
    ]
