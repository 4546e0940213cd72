"""Training of `guide`: one stage, on noisy images of the data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW

from t2i.core.families.schedule import add_noise
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.diffusion.training import draw_times
from t2i.plugins.common.gan.losses.contrastive import contrast, equal_rows
from t2i.plugins.common.text.along import train_along
from t2i.plugins.models.guide.config import GuideConfig
from t2i.plugins.models.guide.networks import LABEL, NoisyClip


class GuideTrainer(Trainer):
    """Trains f (and g) on q(x_t | x_0), at uniform timesteps.

    With classes the loss is the cross entropy. With text it is CLIP's: each image of the global
    batch must find its caption, and each caption its image. Equal captions are not compared. With
    `against_kept` an image must find its caption among those that are kept, too.

    Source: Dhariwal & Nichol 2021, section 4; Nichol et al. 2022 (GLIDE), section 2.3.

    Args:
        config: The model's settings.
        networks: The model's networks; the generator is a `NoisyClip`.
    """

    def __init__(self, config: GuideConfig, networks: Networks) -> None:
        generator, text_encoder = networks.generator, networks.text_encoder
        assert isinstance(generator, NoisyClip)
        self.generator = generator
        self.against_kept = config.against_kept
        self.modules = {"guide": generator}
        groups: list[dict[str, Any]] = [{"params": list(generator.parameters())}]
        if not config.classes:
            train_along(text_encoder, config.lr_text, self.modules, groups)
        self.optimizers = {
            "guide": AdamW(
                groups, config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
            )
        }

    def step(self, batch: Batch, engine: Engine) -> Losses:
        generator = self.generator
        eps = batch.noise.normal("eps", 0, generator.noise_shape)
        t = draw_times(generator.schedule, None, batch.noise)
        x_t = add_noise(generator.schedule, batch.images, t, eps)
        f = generator.of_images(x_t, t)
        if generator.text is None:
            loss = F.cross_entropy(f, generator.condition(batch.text).extras[LABEL])
            engine.update("guide", loss)
            return {"cross_entropy": loss}
        sentences = engine.gathered(batch.text.sentence)
        f, g = engine.gathered(f), generator.of_sentences(sentences)
        scores = generator.scale * f @ g.T
        alike = equal_rows(sentences.detach())
        kept = generator.against_kept(f, g) if self.against_kept else None
        loss = contrast(scores, alike, kept) / 2
        engine.update("guide", loss)
        generator.keep(sentences.detach())
        return {"contrastive": loss, "found": _found(scores.detach(), alike)}


def _found(scores: Tensor, alike: Tensor) -> Tensor:
    """Return the share of images whose best caption is their own."""
    best = scores.argmax(1, keepdim=True)
    return torch.take_along_dim(alike, best, 1).float().mean()


def stages(config: GuideConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the one stage, `guide`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. The stage trains it if it is trainable.

    Returns:
        The stage.
    """
    return [Stage("guide", 1.0, partial(GuideTrainer, config))]
