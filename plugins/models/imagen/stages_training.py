"""Training of one stage of DeepFloyd IF."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from t2i.core.families.cascade import LEVEL, PREVIOUS, low_res
from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage
from t2i.plugins.common.cascades.augmentation import enlarged
from t2i.plugins.common.diffusion.training import DenoisingTrainer
from t2i.plugins.models.imagen.deepfloyd import DeepFloydConfig
from t2i.plugins.models.imagen.stages import SecondStage


class StageTrainer(DenoisingTrainer):
    """Trains a stage. One that enlarges is given the image made smaller, enlarged and noised.

    Args:
        config: The model's settings.
        networks: The model's networks.
    """

    def __init__(self, config: DeepFloydConfig, networks: Networks) -> None:
        super().__init__(config, networks)
        self.stage, self.largest = networks.generator, config.augmentation

    def step(self, batch: Batch, engine: Engine) -> Losses:
        if not isinstance(self.stage, SecondStage):
            return super().step(batch, engine)
        with torch.no_grad():
            z_0 = self.clean(batch)
            low = low_res(z_0, self.stage.low_size)
            large = enlarged(low, (z_0.shape[-2], z_0.shape[-1]), "corners")
            level = batch.noise.uniform("level", 0, ()) * self.largest
            added = batch.noise.normal("augmentation", 0, large.shape[1:])
            extras = {PREVIOUS: self.stage.noised(large, level, added), LEVEL: level}
        eps = batch.noise.normal("eps", 0, z_0.shape[1:])
        text: TextFeatures = self.captions(batch)
        text = replace(text, extras={**text.extras, **extras})
        return self.learn(z_0, eps, self.times(batch.noise), text, engine)


def stages(config: DeepFloydConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the one stage, `diffusion`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. The stage trains it if it is trainable.

    Returns:
        The stage.
    """
    return [Stage("diffusion", 1.0, partial(StageTrainer, config))]
