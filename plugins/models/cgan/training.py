"""Training of the conditional GAN: first a trainable text encoder, then the GAN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Losses, Networks, Stage
from t2i.plugins.common.gan.blocks.batchnorm import recalibrate
from t2i.plugins.common.gan.losses.cross_entropy import cross_entropy
from t2i.plugins.common.gan.mlp.training import MLPTrainer
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.seen import Seen
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
    generator: CGANGenerator

    def __init__(self, config: CGANConfig, networks: Networks) -> None:
        assert isinstance(networks.generator, CGANGenerator)
        self.layers, self.pair = discriminator(config, networks.text_encoder.shape.sentence)
        critic = Critic(
            "discriminator",
            {"discriminator": self.layers, "pair": self.pair},
            features=self.layers,
            matching=self.pair,
            own=self.discriminator_loss,
            own_generator=self.generator_loss,
        )
        super().__init__(config, networks.generator, critic)

    def sentence(self, batch: Batch) -> Tensor:
        return batch.text.sentence.detach()

    def discriminator_loss(self, seen: Seen, penalised: bool) -> tuple[Tensor, Losses]:
        """Compute D's loss.

        It is (BCE(D(x, e), 1) + (1 - cls) BCE(D(G(z, e), e), 0) + cls BCE(D(x, e'), 0)) / 2, where
        e' are sentences of other images.

        Args:
            seen: What D sees.
            penalised: Not used: there are no penalties.

        Returns:
            The loss, a scalar, and what the log shows.
        """
        e, cls = seen.condition, self.config.cls
        real, generated = self.layers(torch.cat([seen.images, seen.generated])).chunk(2)
        loss = cross_entropy(self.pair(real, e), real=True)
        loss = loss + (1 - cls) * cross_entropy(self.pair(generated, e), real=False)
        if cls:
            wrong = self.pair(real, seen.mismatched)
            loss = loss + cls * cross_entropy(wrong, real=False)
        loss = loss / 2
        return loss, {"discriminator": loss}

    def generator_loss(self, seen: Seen) -> Tensor:
        """Compute G's loss, BCE(D(G(z, e), e), 1).

        Args:
            seen: What D sees.

        Returns:
            The loss, a scalar.
        """
        return cross_entropy(self.pair(self.layers(seen.generated), seen.condition), real=True)

    def finish(self, batches: Callable[[], Batch]) -> None:
        """Recompute the statistics of the sentences: no other layer has some."""
        sentence = self.generator.sentence
        count = self.config.recalibrate if self.config.standardise else 0
        recalibrate(sentence, lambda batch: sentence(batch.text.sentence), batches, count)


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
