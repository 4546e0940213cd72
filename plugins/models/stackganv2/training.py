"""Training of StackGAN-v2: contrastive pretraining of a trainable text encoder, then the GAN."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Networks, Stage
from t2i.plugins.common.gan.losses.colour import colour_consistency
from t2i.plugins.common.gan.losses.cross_entropy import (
    joint_discriminator_loss,
    matching_aware_discriminator_loss,
)
from t2i.plugins.common.gan.remedies.seen import Seen
from t2i.plugins.common.gan.trees.discriminator import Discriminator
from t2i.plugins.common.gan.trees.generator import TreeOutput
from t2i.plugins.common.gan.trees.training import TreeTrainer
from t2i.plugins.common.text.contrastive import text_stages
from t2i.plugins.models.stackganv2.config import StackGANv2Config


def discriminator_loss(
    d: Discriminator, real: Tensor, fake: Tensor, mean: Tensor, other: Tensor, u: float
) -> Tensor:
    """Return the loss of one discriminator, with wrong pairs of the images and other texts.

    Real and fake images go through the network separately, so its batch norms see one kind at a
    time. The wrong images are the real ones in another order, so they need no pass of their own.

    Args:
        d: The discriminator.
        real: Real images, float (B, 3, S, S).
        fake: Generated images of the same shape, without gradients.
        mean: mu of the images' texts, float (B, c_dim).
        other: mu of other texts, of the same shape.
        u: Weight of the unconditional output. 0: it is left out.

    Returns:
        The loss, a scalar.
    """
    x, x_fake = d(real), d(fake)
    pairs = d.conditional(x, mean), d.conditional(x_fake, mean), d.conditional(x, other)
    if not u:
        return matching_aware_discriminator_loss(*pairs)
    alone = d.unconditional(x)
    return joint_discriminator_loss(*pairs, alone, d.unconditional(x_fake), alone, u)


class GANTrainer(TreeTrainer):
    """The GAN stage. The discriminators take mu, the mean of the condition c^.

    They do not train mu, but G's loss does, through them too.

    Args:
        config: The model's settings.
        networks: The model's networks.
    """

    config: StackGANv2Config

    def __init__(self, config: StackGANv2Config, networks: Networks) -> None:
        judges = [
            Discriminator(config, scale, config.c_dim, condition_first=True)
            for scale in range(config.scales)
        ]
        self.unconditional = config.unconditional
        super().__init__(config, networks, judges)

    def condition(self, drawn: TreeOutput) -> Tensor:
        return drawn.mean

    def discriminator_loss(self, d: Discriminator, seen: Seen) -> Tensor:
        texts = seen.condition, seen.mismatched
        return discriminator_loss(d, seen.images, seen.generated, *texts, self.unconditional)

    def further(self, drawn: TreeOutput, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        if not self.config.colour or self.config.scales < 2:
            return {}
        return {"colour": (self.config.colour, colour_consistency(drawn.images))}


def stages(config: StackGANv2Config, text_encoder: TextEncoder) -> list[Stage]:
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
