"""Training of DF-GAN: contrastive pretraining of a trainable text encoder, then the GAN."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.gan.losses.hinge import hinge_generator, penalised_hinge
from t2i.plugins.common.gan.losses.outline import with_outline
from t2i.plugins.common.gan.optimizers import adam_pair
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.seam import Remedies
from t2i.plugins.common.gan.remedies.seen import Seen
from t2i.plugins.common.text.contrastive import text_stages
from t2i.plugins.models.dfgan.config import DFGANConfig
from t2i.plugins.models.dfgan.networks import Discriminator, OneWayOutput


class GANTrainer(Trainer):
    """The GAN stage: each step updates D, then G, on the same fake images.

    G runs once a step. Its graph is kept for its own update.

    Args:
        config: The model's settings.
        networks: The model's networks.
    """

    eager = ("discriminator", "output")  # MA-GP differentiates through their backward pass

    def __init__(self, config: DFGANConfig, networks: Networks) -> None:
        generator = networks.generator
        assert isinstance(generator, OneShotGenerator)
        self.config = config
        self.generator = generator
        self.discriminator = Discriminator(config)
        self.output = OneWayOutput(config, networks.text_encoder.shape.sentence)
        self.modules = {
            "generator": generator,
            "discriminator": self.discriminator,
            "output": self.output,
        }
        self.critic = Critic(
            "discriminator",
            {"discriminator": self.discriminator, "output": self.output},
            features=self.discriminator,
            matching=self.output,
            own=self.hinge,
            own_generator=lambda seen: hinge_generator(
                self.output(self.discriminator(seen.generated), seen.condition)
            ),
        )
        self.remedies = Remedies(config, [self.critic])
        self.modules |= self.remedies.modules
        self.optimizers = adam_pair(config, generator.parameters(), self.critic.parameters())

    def step(self, batch: Batch, engine: Engine) -> Losses:
        sentence = batch.text.sentence.detach()
        z = batch.noise.normal("z", 0, self.generator.noise_shape)
        fake = self.generator(z, batch.text.detach())
        seen = self.remedies.seen(self.critic, batch, engine, batch.images, fake, sentence)
        losses = self.remedies.update(seen)
        losses["generator"] = loss = self.remedies.adversarial(seen)
        loss = with_outline(loss, losses, self.config.outline, [fake], batch.images)
        self.remedies.update_generator("generator", loss, batch, engine)
        return losses

    def hinge(self, seen: Seen, penalised: bool) -> tuple[Tensor, Losses]:
        """Compute the discriminator's loss: hinge with mismatched pairs, and MA-GP.

        Args:
            seen: What the discriminator sees.
            penalised: Whether MA-GP belongs to it.

        Returns:
            The loss, a scalar, and what the log shows.
        """
        images, matching = seen.images.detach(), seen.condition
        if penalised:
            images, matching = images.requires_grad_(), matching.clone().requires_grad_()
        features = self.discriminator(images)
        real = self.output(features, matching)
        mismatched = self.output(features, seen.mismatched)
        judged = self.output(self.discriminator(seen.generated), seen.condition)
        inputs = [images, matching] if penalised else None
        c = self.config
        return penalised_hinge((real, judged, mismatched), inputs, c.penalty_k, c.penalty_p, c.pack)


def stages(config: DFGANConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Return the stages: `text`, which is left out with a frozen text encoder, then `gan`.

    Args:
        config: The model's settings.
        text_encoder: The text encoder.

    Returns:
        The stages in order.
    """
    return [
        *text_stages(config, text_encoder),
        Stage("gan", 1 - config.text_share, partial(GANTrainer, config)),
    ]
