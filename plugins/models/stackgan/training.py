"""Training of StackGAN: first a trainable text encoder, then stage I, then stage II.

Stage I is frozen in stage II.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.gan.blocks.batchnorm import recalibrate
from t2i.plugins.common.gan.conditioning.augmentation import kl_loss
from t2i.plugins.common.gan.losses.cross_entropy import (
    cross_entropy,
    discriminator_of_pairs_and_images,
    generator_of_pairs_and_images,
    matching_aware_discriminator_loss,
)
from t2i.plugins.common.gan.losses.outline import with_outline
from t2i.plugins.common.gan.optimizers import adam_pair
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.seam import Remedies
from t2i.plugins.common.gan.remedies.seen import Seen
from t2i.plugins.common.text.contrastive import text_stages
from t2i.plugins.models.stackgan.config import StackGANConfig
from t2i.plugins.models.stackgan.networks import (
    ConditionalHead,
    Discriminator,
    StackGANGenerator,
    StageOutput,
    UnconditionalHead,
)


class GANTrainer(Trainer):
    """Base of both stages: each step updates D, then G, on the same fake images.

    G runs once a step.

    Args:
        config: The model's settings.
        generator: Both generators, for the noise and for stage I.
        network: The generator of this stage, which is trained.
        image_size: Side of this stage's images in pixels.
    """

    def __init__(
        self,
        config: StackGANConfig,
        generator: StackGANGenerator,
        network: nn.Module,
        image_size: int,
    ) -> None:
        self.config, self.generator, self.network, self.image_size = (
            config,
            generator,
            network,
            image_size,
        )
        self.discriminator = Discriminator(config.df, image_size, config.pack)
        self.matching = ConditionalHead(self.discriminator.width, config.pack * config.c_dim)
        self.modules = {
            "network": network,
            "discriminator": self.discriminator,
            "matching": self.matching,
        }

    def _optimize(self, realism: UnconditionalHead | None = None) -> None:
        """Make the remedies, then the optimizers, when all networks are there."""
        modules: dict[str, nn.Module] = {
            "discriminator": self.discriminator,
            "matching": self.matching,
        }
        self.critic = Critic(
            "discriminator",
            modules if realism is None else {**modules, "realism": realism},
            features=self.discriminator,
            matching=self.matching,
            realism=realism,
            own=self._own_loss,
            own_generator=lambda seen: self.generator_loss(seen.generated, seen.condition),
        )
        self.remedies = Remedies(self.config, [self.critic])
        self.modules |= self.remedies.modules
        self.optimizers = adam_pair(
            self.config, self.network.parameters(), self.critic.parameters()
        )

    def _own_loss(self, seen: Seen, penalised: bool) -> tuple[Tensor, Losses]:
        """Return D's loss, which has no penalty, and the same for the log."""
        loss = self.discriminator_loss(seen.images, seen.generated, seen.condition)
        return loss, {"discriminator": loss}

    @abstractmethod
    def draw(self, batch: Batch) -> StageOutput:
        """Generate this stage's images for a batch, with gradients into what the stage trains.

        Args:
            batch: The batch, with its captions and its noise.

        Returns:
            Images of this stage's size, and the condition's mu and log sigma^2.
        """

    @abstractmethod
    def discriminator_loss(self, real: Tensor, fake: Tensor, mean: Tensor) -> Tensor:
        """Return D's loss. None of the tensors gets gradients.

        Args:
            real: Real images, float (B, 3, H, H).
            fake: Generated images of the same shape.
            mean: mu of the texts, float (B, c_dim).

        Returns:
            The loss, a scalar.
        """

    @abstractmethod
    def generator_loss(self, fake: Tensor, mean: Tensor) -> Tensor:
        """Return the adversarial part of G's loss.

        Args:
            fake: Generated images, float (B, 3, H, H).
            mean: mu of the texts, float (B, c_dim), without gradients.

        Returns:
            The loss, a scalar.
        """

    def step(self, batch: Batch, engine: Engine) -> Losses:
        drawn = self.draw(batch)
        mean = drawn.mean.detach()  # the discriminator takes mu, but does not train it
        real = F.avg_pool2d(batch.images, batch.images.shape[-1] // self.image_size)
        seen = self.remedies.seen(self.critic, batch, engine, real, drawn.images, mean)
        losses = self.remedies.update(seen)
        losses["generator"] = self.remedies.adversarial(seen)
        losses["kl"] = kl_loss(drawn.mean, drawn.logvar)
        loss = losses["generator"] + self.config.kl * losses["kl"]
        loss = with_outline(loss, losses, self.config.outline, [drawn.images], batch.images)
        self.remedies.update_generator("generator", loss, batch, engine)
        return losses

    def pairs(self, real: Tensor, fake: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score real, fake and wrong pairs.

        Wrong pairs are the B - 1 pairs of image i with text i + 1, without wrap-around.

        Args:
            real: Features of real images, float (B, width, 4, 4).
            fake: Features of generated images of the same shape.
            mean: mu of the texts, float (B, c_dim).

        Returns:
            Logits of real pairs (B,), of fake pairs (B,) and of wrong pairs (B - 1,).
        """
        # The order is the authors'.
        right, wrong = (
            self.matching(real, mean),
            self.matching(real[:-1], mean[1:]),
        )
        return right, self.matching(fake, mean), wrong

    def finish(self, batches: Callable[[], Batch]) -> None:
        recalibrate(self.network, self.draw, batches, self.config.recalibrate)


class FirstTrainer(GANTrainer):
    """Stage I: G0, and D0, which scores pairs of image and text.

    Source: Zhang et al. 2017, equations 3 and 4.

    Args:
        config: The model's settings.
        generator: Both generators.
    """

    def __init__(self, config: StackGANConfig, generator: StackGANGenerator) -> None:
        super().__init__(config, generator, generator.first, config.first_size)
        self._optimize()

    def draw(self, batch: Batch) -> StageOutput:
        z, eps, *_ = self.generator.split(batch.noise.normal("z", 0, self.generator.noise_shape))
        drawn: StageOutput = self.network(z, eps, batch.text.sentence)
        return drawn

    def discriminator_loss(self, real: Tensor, fake: Tensor, mean: Tensor) -> Tensor:
        return matching_aware_discriminator_loss(
            *self.pairs(self.discriminator(real), self.discriminator(fake), mean)
        )

    def generator_loss(self, fake: Tensor, mean: Tensor) -> Tensor:
        return cross_entropy(self.matching(self.discriminator(fake), mean), real=True)


class SecondTrainer(GANTrainer):
    """Stage II: G, and D, which scores pairs and, with a second output, images alone.

    G0 is frozen and runs once a step, without a graph. As in the authors' code it runs in training
    mode: its batch norms use the statistics of the batch, and their running statistics keep being
    updated. Source: Zhang et al. 2017, equations 5 and 6.

    Args:
        config: The model's settings.
        generator: Both generators. Its flag `refines` is set.
    """

    def __init__(self, config: StackGANConfig, generator: StackGANGenerator) -> None:
        assert generator.second is not None
        super().__init__(config, generator, generator.second, config.image_size)
        self.realism = UnconditionalHead(self.discriminator.width)
        self.modules |= {"realism": self.realism, "first": generator.first}
        self._optimize(self.realism)
        generator.refines.fill_(True)

    def draw(self, batch: Batch) -> StageOutput:
        z, eps0, eps = self.generator.split(batch.noise.normal("z", 0, self.generator.noise_shape))
        with torch.no_grad():
            s0 = self.generator.first(z, eps0, batch.text.sentence).images
        drawn: StageOutput = self.network(s0, eps, batch.text.sentence)
        return drawn

    def discriminator_loss(self, real: Tensor, fake: Tensor, mean: Tensor) -> Tensor:
        real, fake = self.discriminator(real), self.discriminator(fake)
        pairs = self.pairs(real, fake, mean)
        return discriminator_of_pairs_and_images(*pairs, self.realism(real), self.realism(fake))

    def generator_loss(self, fake: Tensor, mean: Tensor) -> Tensor:
        features = self.discriminator(fake)
        return generator_of_pairs_and_images(self.matching(features, mean), self.realism(features))


def stages(config: StackGANConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Return the stages: `text`, `stage1` and `stage2`.

    `text` is left out with a frozen text encoder, `stage2` where the setting `stages` is 1.

    Args:
        config: The model's settings.
        text_encoder: The text encoder.

    Returns:
        The stages in order.
    """

    def trainer(kind: type[FirstTrainer] | type[SecondTrainer], networks: Networks) -> Trainer:
        assert isinstance(networks.generator, StackGANGenerator)
        return kind(config, networks.generator)

    gan, first = 1 - config.text_share, config.stage1_share if config.stages == 2 else 1.0
    own = {
        "batch_size": config.stage1_batch or config.batch_size,
        "lr_halvings": config.halvings[0],
    }
    both = [
        Stage("stage1", gan * first, partial(trainer, FirstTrainer), own),
        Stage(
            "stage2",
            gan * (1 - first),
            partial(trainer, SecondTrainer),
            {"lr_halvings": config.halvings[1]},
        ),
    ]
    return text_stages(config, text_encoder) + both[: config.stages]
