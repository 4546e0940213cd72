"""Training of StackGAN: the text encoder where it is trainable, then stage I, then stage II with stage I frozen."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.gan.batchnorm import recompute_batchnorm
from t2i.plugins.common.gan.conditioning import kl_loss
from t2i.plugins.common.gan.losses import (
    cross_entropy,
    discriminator_of_pairs_and_images,
    matching_aware_discriminator_loss,
)
from t2i.plugins.common.gan.optimizers import adam_pair
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
    """What the stages share: one step of D, then one of G, on the same fake images: G runs once a step.

    network: the stage's generator, the one that is trained. image_size: of its images.
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
        self.discriminator = Discriminator(config.df, image_size)
        self.matching = ConditionalHead(self.discriminator.width, config.c_dim)
        self.modules = {
            "network": network,
            "discriminator": self.discriminator,
            "matching": self.matching,
        }

    def _optimize(self, *judges: nn.Module) -> None:
        parameters = [p for judge in judges for p in judge.parameters()]
        self.optimizers = adam_pair(self.config, self.network.parameters(), parameters)

    @abstractmethod
    def draw(self, batch: Batch) -> StageOutput:
        """The stage's images for a batch, with gradients into what the stage trains."""

    @abstractmethod
    def discriminator_loss(self, real: Tensor, fake: Tensor, mean: Tensor) -> Tensor:
        """D's loss for images (B, 3, H, H) and mu (B, c), none of which gets gradients."""

    @abstractmethod
    def generator_loss(self, fake: Tensor, mean: Tensor) -> Tensor:
        """The adversarial part of G's loss."""

    def step(self, batch: Batch, engine: Engine) -> Losses:
        drawn = self.draw(batch)
        mean = drawn.mean.detach()  # the discriminator judges with mu, and does not train it
        real = F.avg_pool2d(batch.images, batch.images.shape[-1] // self.image_size)
        judged = self.discriminator_loss(real, drawn.images.detach(), mean)
        engine.update("discriminator", judged)
        adversarial, kl = self.generator_loss(drawn.images, mean), kl_loss(drawn.mean, drawn.logvar)
        engine.update("generator", adversarial + self.config.kl * kl)
        return {"discriminator": judged, "generator": adversarial, "kl": kl}

    def pairs(self, real: Tensor, fake: Tensor, mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of real, fake and wrong pairs, from features: wrong are the B - 1 neighbours, image i with text i + 1,
        without wrap-around."""
        right, wrong = (
            self.matching(real, mean),
            self.matching(real[:-1], mean[1:]),
        )  # in the authors' order
        return right, self.matching(fake, mean), wrong

    def finish(self, batches: Callable[[], Batch]) -> None:
        """Measures the batch norms' statistics with the averaged weights: those at hand are of the last weights."""
        if not self.config.recalibrate:
            return
        with recompute_batchnorm(self.network):
            for _ in range(self.config.recalibrate):
                self.draw(batches())


class FirstTrainer(GANTrainer):
    """Stage I (equations 3 and 4): G0 and D0, which sees pairs."""

    def __init__(self, config: StackGANConfig, generator: StackGANGenerator) -> None:
        super().__init__(config, generator, generator.first, config.first_size)
        self._optimize(self.discriminator, self.matching)

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
    """Stage II (equations 5 and 6): G and D, which sees pairs and, with a second output, images by themselves.

    G0 is frozen, and runs once a step, without a graph. As in the authors' code it runs in training mode: batch norm
    uses its batch, and its statistics go on following.
    """

    def __init__(self, config: StackGANConfig, generator: StackGANGenerator) -> None:
        assert generator.second is not None
        super().__init__(config, generator, generator.second, config.image_size)
        self.realism = UnconditionalHead(self.discriminator.width)
        self.modules |= {"realism": self.realism, "first": generator.first}
        self._optimize(self.discriminator, self.matching, self.realism)
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
        pairs, images = self.matching(features, mean), self.realism(features)
        return cross_entropy(pairs, real=True) + cross_entropy(images, real=True)


def stages(config: StackGANConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Text (absent with a frozen encoder), stage I, and stage II where there is one."""

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
