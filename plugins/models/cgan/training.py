"""Training of the conditional GAN: first a trainable text encoder, then the GAN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Engine, Networks, Stage
from t2i.plugins.common.gan.blocks.batchnorm import recompute_batchnorm
from t2i.plugins.common.gan.losses.cross_entropy import cross_entropy
from t2i.plugins.common.gan.mlp.training import MLPTrainer
from t2i.plugins.common.text.contrastive import text_stages
from t2i.plugins.models.cgan.config import CGANConfig
from t2i.plugins.models.cgan.networks import CGANGenerator, discriminator


class CGANTrainer(MLPTrainer):
    """The GAN stage.

    Source: Mirza and Osindero 2014, equation 2; wrong pairs as in Reed et al. 2016, algorithm 1.

    Args:
        config: The model's settings.
        networks: The model's networks.
    """

    config: CGANConfig

    def __init__(self, config: CGANConfig, networks: Networks) -> None:
        assert isinstance(networks.generator, CGANGenerator)
        self.layers, self.pair = discriminator(config, networks.text_encoder.shape.sentence)
        super().__init__(
            config, networks.generator, {"discriminator": self.layers, "pair": self.pair}
        )

    def discriminator_loss(self, fake: Tensor, batch: Batch, engine: Engine) -> Tensor:
        e, cls = batch.text.sentence.detach(), self.config.cls
        real, generated = self.layers(torch.cat([batch.images, fake])).chunk(2)
        # The text's statistics are those of each kind of pair, not of all together.
        loss = cross_entropy(self.pair(real, e), real=True)
        loss = loss + (1 - cls) * cross_entropy(self.pair(generated, e), real=False)
        if cls:
            wrong = self.pair(real, engine.shifted(e))
            loss = loss + cls * cross_entropy(wrong, real=False)
        return loss / 2

    def generator_loss(self, fake: Tensor, batch: Batch) -> Tensor:
        logits = self.pair(self.layers(fake), batch.text.sentence.detach())
        return cross_entropy(logits, real=True)

    def finish(self, batches: Callable[[], Batch]) -> None:
        """Recompute the statistics of the sentences (`recalibrate` batches)."""
        if not (self.config.recalibrate and self.config.standardise):
            return
        with recompute_batchnorm(self.generator):
            for _ in range(self.config.recalibrate):
                self.generator.sentence(batches().text.sentence)


def stages(config: CGANConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Return the stages: `text`, which is left out with a frozen text encoder, then `gan`.

    Args:
        config: The model's settings.
        text_encoder: The text encoder.

    Returns:
        The stages in order.
    """
    return [
        *text_stages(config, text_encoder),
        Stage("gan", 1 - config.text_share, partial(CGANTrainer, config)),
    ]
