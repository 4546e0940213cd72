"""Training of Parti: the tokenizer, unless it is pretrained, then the encoder and the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.optimizer import Optimizer
from transformers.optimization import Adafactor

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import (
    Batch,
    Engine,
    Losses,
    Networks,
    Optimization,
    Stage,
    Trainer,
)
from t2i.plugins.common.causal.generator import cross_entropy, decayed
from t2i.plugins.common.text.along import train_along
from t2i.plugins.common.tokens.training import tokenizer_stage
from t2i.plugins.models.parti.config import PartiConfig
from t2i.plugins.models.parti.networks import PartiGenerator


class PartiTrainer(Trainer):
    """Minimises the cross-entropy of the image tokens given the caption.

    A text encoder that can be trained is trained too.

    Source: Yu et al. 2022, section 2.2.

    Args:
        config: Settings of the model.
        networks: The model's networks. The generator is a `PartiGenerator`.
    """

    def __init__(self, config: PartiConfig, networks: Networks) -> None:
        generator, text_encoder = networks.generator, networks.text_encoder
        assert isinstance(generator, PartiGenerator)
        self.config, self.generator, self.network = config, generator, generator.network
        self.encode = generator.encode
        self.modules: dict[str, nn.Module] = {"network": self.network}
        groups = decayed(self.network, config.weight_decay)
        train_along(text_encoder, config.lr_text, self.modules, groups, weight_decay=0.0)
        schedule = partial(falling, start=config.lr_decay_start, ratio=config.lr_decay_ratio)
        self.optimizers = {"network": Optimization(optimizer_of(config, groups), schedule=schedule)}

    def step(self, batch: Batch, engine: Engine) -> Losses:
        with torch.no_grad():
            encoded = batch.encoded
            tokens = self.generator.encode(batch.images) if encoded is None else encoded
        text = self.generator.condition(batch.dropped(self.config.caption_dropout)[0])
        loss = cross_entropy(self.network(tokens, text), tokens)
        losses: Losses = {"cross_entropy": loss}
        if self.network.outline_weight:
            outline = self.network.outline(text).flatten(2).transpose(1, 2)
            losses["outline"] = cross_entropy(outline, tokens)
            loss = loss + self.network.outline_weight * losses["outline"]
        engine.update("network", loss)
        return losses

    def validation(self, batch: Batch, engine: Engine) -> Losses:
        return self.step(batch, engine)  # it changes nothing but through `engine.update`


def optimizer_of(config: PartiConfig, groups: list[dict[str, Any]]) -> Optimizer:
    """Make the optimizer.

    Args:
        config: Settings of the model.
        groups: Parameter groups.

    Returns:
        AdamW, or Adafactor with a mean of gradients, learning rates that are not relative, and
        second moments whose decay grows as 1 - t^-0.8.
    """
    if config.optimizer == "adamw":
        return AdamW(groups, config.lr, betas=config.betas, fused=True)
    kind: Any = Adafactor  # it has no types
    made: Optimizer = kind(
        groups, config.lr, beta1=config.betas[0], scale_parameter=False, relative_step=False
    )
    return made


def falling(progress: float, start: float, ratio: float) -> float:
    """Compute the factor of an exponential decay of the learning rate.

    Args:
        progress: Progress of the stage, 0 to 1.
        start: Progress at which the decay begins.
        ratio: The factor at the end. 1: there is no decay.

    Returns:
        The factor.
    """
    return 1.0 if progress <= start else float(ratio ** ((progress - start) / (1 - start)))


def stages(config: PartiConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the stages: `tokenizer`, which is left out if it has weights, then `transformer`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. Stage `transformer` trains it if it is trainable.

    Returns:
        The stages in order.
    """
    first = tokenizer_stage(config.tokenizer, config.batch_size)
    share = 1 - sum(stage.share for stage in first)
    return [*first, Stage("transformer", share, partial(PartiTrainer, config))]
