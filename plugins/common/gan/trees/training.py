"""Training of a generator of several image sizes: one step updates every D_i, then G."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Trainer
from t2i.plugins.common.gan.blocks.batchnorm import recalibrate
from t2i.plugins.common.gan.conditioning.augmentation import kl_loss
from t2i.plugins.common.gan.losses.cross_entropy import (
    cross_entropy,
    generator_of_pairs_and_images,
)
from t2i.plugins.common.gan.losses.outline import with_outline
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.seam import Remedies
from t2i.plugins.common.gan.remedies.seen import Seen
from t2i.plugins.common.gan.trees.config import TreeConfig
from t2i.plugins.common.gan.trees.discriminator import Discriminator
from t2i.plugins.common.gan.trees.generator import TreeGenerator, TreeOutput


def generator_loss(
    d: Discriminator, fake: Tensor, condition: Tensor, unconditional: float = 1.0
) -> Tensor:
    """Return the generator's loss at one discriminator: -log D(x^) of both outputs, summed.

    Source: Xu et al. 2018 (AttnGAN), equation 4 (L_Gi), but not halved, as in the authors' code.

    Args:
        d: The discriminator.
        fake: Generated images, float (B, 3, S, S).
        condition: Conditions, float (B, D).
        unconditional: Weight of the unconditional output. 0: it is left out.

    Returns:
        The loss, a scalar.
    """
    x = d(fake)
    pairs = d.conditional(x, condition)
    if not unconditional:
        return cross_entropy(pairs, real=True)
    return generator_of_pairs_and_images(pairs, d.unconditional(x), unconditional)


def shrunk(images: Tensor, size: int) -> Tensor:
    """Shrink real images to a smaller scale, with antialiasing.

    Args:
        images: Images, float (B, 3, H, H).
        size: Side of the result in pixels, at most H.

    Returns:
        The images, float (B, 3, size, size).
    """
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


class TreeTrainer(Trainer):
    """The GAN stage: each step updates every D_i, then G, on the same fake images.

    G runs once a step.

    Args:
        config: The model's settings.
        networks: The model's networks.
        discriminators: D_i of each scale, the smallest images first.
    """

    unconditional = 1.0
    """Weight of the unconditional outputs in G's loss."""

    def __init__(
        self, config: TreeConfig, networks: Networks, discriminators: Sequence[Discriminator]
    ) -> None:
        generator = networks.generator
        assert isinstance(generator, TreeGenerator)
        self.config = config
        self.network, self.noise_shape = generator.network, generator.noise_shape
        self.discriminators = list(discriminators)
        self.critics = [self._critic(i, d) for i, d in enumerate(self.discriminators)]
        self.remedies = Remedies(config, self.critics)
        judges = {f"discriminator{i}": d for i, d in enumerate(self.discriminators)}
        self.modules: dict[str, nn.Module] = {
            "network": self.network,
            **judges,
            **self.remedies.modules,
        }
        betas = (config.beta1, config.beta2)
        self.optimizers = {
            name: Adam(d.parameters(), config.lr_d, betas, fused=True) for name, d in judges.items()
        }
        self.optimizers["generator"] = Adam(
            self.network.parameters(), config.lr_g, betas, fused=True
        )

    def _critic(self, scale: int, d: Discriminator) -> Critic:
        """Describe D_i to the remedies."""
        name = f"discriminator{scale}"

        def own(seen: Seen, penalised: bool) -> tuple[Tensor, Losses]:
            loss = self.discriminator_loss(d, seen)
            return loss, {name: loss}

        def own_generator(seen: Seen) -> Tensor:
            return generator_loss(d, seen.generated, seen.condition, self.unconditional)

        return Critic(
            name,
            {name: d},
            features=d,
            matching=d.conditional,
            realism=d.unconditional if self.unconditional else None,
            own=own,
            own_generator=own_generator,
        )

    @abstractmethod
    def condition(self, drawn: TreeOutput) -> Tensor:
        """Return what the discriminators take of the text.

        Args:
            drawn: What the generator's network returned.

        Returns:
            Conditions, float (B, D). Gradients through them reach G in its own update alone.
        """

    @abstractmethod
    def discriminator_loss(self, d: Discriminator, seen: Seen) -> Tensor:
        """Return the loss of one discriminator.

        Args:
            d: The discriminator.
            seen: Real and generated images, float (B, 3, S, S), B of at least 2, and conditions,
                float (B, D).

        Returns:
            The loss, a scalar.
        """

    def further(self, drawn: TreeOutput, batch: Batch) -> dict[str, tuple[float, Tensor]]:
        """Return further terms of G's loss: none by default.

        Args:
            drawn: What the generator's network returned.
            batch: The batch.

        Returns:
            The weight and the value of each term, by the name under which it is logged.
        """
        return {}

    def draw(self, batch: Batch) -> TreeOutput:
        """Generate the images of all scales for a batch.

        Args:
            batch: The batch, with its captions and its noise.

        Returns:
            What the network returns. No gradient reaches the text encoder.
        """
        noise = batch.noise.normal("z", 0, self.noise_shape)
        drawn: TreeOutput = self.network(noise, batch.text.detach())
        return drawn

    def step(self, batch: Batch, engine: Engine) -> Losses:
        drawn = self.draw(batch)
        condition = self.condition(drawn)
        losses: Losses = {}
        scales = []
        for critic, fake in zip(self.critics, drawn.images, strict=True):
            real = shrunk(batch.images, fake.shape[-1])
            seen = self.remedies.seen(critic, batch, engine, real, fake, condition)
            losses |= self.remedies.update(seen)
            scales.append(seen)
        fooling = [self.remedies.adversarial(seen) for seen in scales]
        losses["adversarial"] = torch.stack(fooling).sum()
        losses["kl"] = kl_loss(drawn.mean, drawn.logvar)
        loss = losses["adversarial"] + self.config.kl * losses["kl"]
        for name, (weight, term) in self.further(drawn, batch).items():
            losses[name] = term
            loss = loss + weight * term
        loss = with_outline(loss, losses, self.config.outline, drawn.images, batch.images)
        self.remedies.update_generator("generator", loss, batch, engine)
        return losses

    def finish(self, batches: Callable[[], Batch]) -> None:
        recalibrate(self.network, self.draw, batches, self.config.recalibrate)
