"""Training of GLIDE: a stage for the base network, and one for the upsampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from t2i.core.families.cascade import KNOWN
from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage
from t2i.plugins.common.cascades.training import UpsamplerTrainer, part_stage
from t2i.plugins.common.diffusion.training import DenoisingTrainer, DiffusionTrainer
from t2i.plugins.models.glide.config import GlideBase, GlideConfig, GlideUpsampler

ERASED = "erased"  # corners of what is erased of an image, in the text's extras


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
    optimizer = trainer.optimizers[trainer.part]
    assert isinstance(optimizer, Optimizer)
    optimizer.add_param_group(group)


class Erasing(DiffusionTrainer):
    """Erases a rectangle of each image, and tells the network the rest, with `inpainting`.

    Source: Nichol et al. 2022, section 2.4.

    Attributes:
        inpainting: Whether it does.
    """

    inpainting: bool

    def captions(self, batch: Batch) -> TextFeatures:
        text = super().captions(batch)
        if not self.inpainting:
            return text
        corners = batch.noise.uniform("erased", 0, (2, 2))
        return replace(text, extras={**text.extras, ERASED: corners})

    def learn(
        self, z_0: Tensor, eps: Tensor, t: Tensor, text: TextFeatures, engine: Engine
    ) -> Losses:
        if self.inpainting:
            extras = dict(text.extras)
            known = outside(extras.pop(ERASED), (z_0.shape[2], z_0.shape[3]))
            extras[KNOWN] = torch.cat([z_0 * known, known], 1)
            text = replace(text, extras=extras)
        return super().learn(z_0, eps, t, text, engine)


def outside(corners: Tensor, size: tuple[int, int]) -> Tensor:
    """Return masks that are 1 outside of rectangles, and 0 in them.

    Args:
        corners: Two opposite corners of each rectangle, (B, 2, 2) from 0 to 1.
        size: Height and width of the masks.

    Returns:
        The masks, float (B, 1, *size).
    """
    least, most = corners.amin(1), corners.amax(1)
    inside = []
    for axis, length in enumerate(size):
        places = (torch.arange(length, device=corners.device) + 0.5) / length
        inside.append((places >= least[:, axis, None]) & (places <= most[:, axis, None]))
    rows, columns = inside
    return (~(rows[:, None, :, None] & columns[:, None, None])).to(corners.dtype)


class GlideBaseTrainer(Erasing, DenoisingTrainer):
    """Trains the base network with its text transformer.

    Args:
        config: Settings of the part.
        networks: The part's networks.
    """

    def __init__(self, config: GlideBase, networks: Networks) -> None:
        super().__init__(config, networks)
        self.inpainting = config.inpainting
        with_transformer(self, config.lr_transformer or config.lr)


class GlideUpsamplerTrainer(Erasing, UpsamplerTrainer):
    """Trains the upsampler with its text transformer, and leaves a text encoder as it is.

    Args:
        config: Settings of the part.
        networks: The part's networks.
    """

    def __init__(self, config: GlideUpsampler, networks: Networks) -> None:
        super().__init__(config, networks, text=False)
        self.inpainting = config.inpainting
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
