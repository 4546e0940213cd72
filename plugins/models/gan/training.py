"""Training of the vanilla GAN."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Engine, Networks, Stage
from t2i.plugins.common.gan.losses.cross_entropy import cross_entropy
from t2i.plugins.common.gan.mlp.config import MLPGANConfig
from t2i.plugins.common.gan.mlp.training import MLPTrainer
from t2i.plugins.models.gan.networks import Discriminator, GANGenerator


class GANTrainer(MLPTrainer):
    """The only stage.

    Args:
        config: The model's settings.
        networks: The model's networks.
    """

    def __init__(self, config: MLPGANConfig, networks: Networks) -> None:
        assert isinstance(networks.generator, GANGenerator)
        self.discriminator = Discriminator(config)
        super().__init__(config, networks.generator, {"discriminator": self.discriminator})

    def discriminator_loss(self, fake: Tensor, batch: Batch, engine: Engine) -> Tensor:
        real, generated = self.discriminator(torch.cat([batch.images, fake])).chunk(2)
        return (cross_entropy(real, real=True) + cross_entropy(generated, real=False)) / 2

    def generator_loss(self, fake: Tensor, batch: Batch) -> Tensor:
        return cross_entropy(self.discriminator(fake), real=True)


def stages(config: MLPGANConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Return the only stage, `gan`.

    Args:
        config: The model's settings.
        text_encoder: Not used: the model has no text.

    Returns:
        The stage.
    """
    return [Stage("gan", 1.0, partial(GANTrainer, config))]
