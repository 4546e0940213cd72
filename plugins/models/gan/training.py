"""Training of the vanilla GAN."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Losses, Networks, Stage
from t2i.plugins.common.gan.losses.cross_entropy import cross_entropy
from t2i.plugins.common.gan.mlp.config import MLPGANConfig
from t2i.plugins.common.gan.mlp.training import MLPTrainer
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.seen import Seen
from t2i.plugins.models.gan.networks import GANGenerator, discriminator


class GANTrainer(MLPTrainer):
    """The only stage.

    Args:
        config: The model's settings.
        networks: The model's networks.
    """

    def __init__(self, config: MLPGANConfig, networks: Networks) -> None:
        assert isinstance(networks.generator, GANGenerator)
        self.layers, self.score = discriminator(config)
        critic = Critic(
            "discriminator",
            {"discriminator": self.layers, "score": self.score},
            features=self.layers,
            realism=self.score,
            own=self.discriminator_loss,
            own_generator=self.generator_loss,
        )
        super().__init__(config, networks.generator, critic)

    def discriminator_loss(self, seen: Seen, penalised: bool) -> tuple[Tensor, Losses]:
        """Compute D's loss, (BCE(D(x), 1) + BCE(D(G(z)), 0)) / 2.

        Args:
            seen: What D sees.
            penalised: Not used: there are no penalties.

        Returns:
            The loss, a scalar, and what the log shows.
        """
        features = self.layers(torch.cat([seen.images, seen.generated]))
        real, generated = self.score(features).chunk(2)
        loss = (cross_entropy(real, real=True) + cross_entropy(generated, real=False)) / 2
        return loss, {"discriminator": loss}

    def generator_loss(self, seen: Seen) -> Tensor:
        """Compute G's loss, BCE(D(G(z)), 1).

        Args:
            seen: What D sees.

        Returns:
            The loss, a scalar.
        """
        return cross_entropy(self.score(self.layers(seen.generated)), real=True)


def stages(config: MLPGANConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Return the only stage, `gan`.

    Args:
        config: The model's settings.
        text_encoder: Not used: the model has no text.

    Returns:
        The stage.
    """
    return [Stage("gan", 1.0, partial(GANTrainer, config))]
