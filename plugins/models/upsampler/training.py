"""Training of an upsampler: one stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from t2i.core.families.cascade import low_res
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Stage
from t2i.core.registry.tables import registry
from t2i.plugins.common.cascades.augmentation import enlarged
from t2i.plugins.common.cascades.training import UpsamplerTrainer
from t2i.plugins.models.upsampler.config import UpsamplerConfig

PREVIEW_STEPS = 8
"""DDIM steps of the sample grids."""

ENLARGEMENTS = 2
"""How often the grids show each smaller image enlarged."""


class AloneTrainer(UpsamplerTrainer):
    """Trains an upsampler alone: sample grids show true images made smaller, and enlarged again.

    A row of a grid has the smaller image, two enlargements of it, and the true image.
    """

    previews = "Of each: the image made smaller, 2 enlargements of that, the real image."

    def preview(self, batch: Batch) -> Tensor:
        images = self.clean(batch)
        low = low_res(images, self.settings.low_size)
        count = len(images)
        size = (images.shape[-2], images.shape[-1])
        rows = [enlarged(low, size, "nearest")]
        settings = {"steps": PREVIEW_STEPS, "guidance": 1.0}
        sampler: Sampler = registry().samplers.build(registry().samplers.choose("ddim", settings))
        for number in range(ENLARGEMENTS):
            keys = tuple((row, number) for row in range(count))
            noise = PromptNoise(0, keys, images.device)
            extras = self.upsampler.enlarging(low, noise.scope("link"))
            text = replace(batch.text, extras={**batch.text.extras, **extras})
            request = Request(text=self.upsampler.condition(text), noise=noise)
            rows.append(sampler.sample(self.upsampler, request))
        return torch.stack([*rows, images], 1).flatten(0, 1)


def stages(config: UpsamplerConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the one stage, `upsampler`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. The stage trains it if it is trainable.

    Returns:
        The stage.
    """
    return [Stage("upsampler", 1.0, partial(AloneTrainer, config))]
