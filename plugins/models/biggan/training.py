"""Training of BigGAN: contrastive pretraining of a trainable text encoder, then the GAN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.gan.blocks.batchnorm import recalibrate
from t2i.plugins.common.gan.losses.hinge import hinge_discriminator, hinge_generator
from t2i.plugins.common.gan.losses.outline import with_outline
from t2i.plugins.common.gan.optimizers import adam_pair
from t2i.plugins.common.gan.penalties.matching_aware import matching_aware_penalty
from t2i.plugins.common.gan.penalties.orthogonal import orthogonal_regularisation
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.seam import Remedies
from t2i.plugins.common.gan.remedies.seen import Seen
from t2i.plugins.common.text.contrastive import text_stages
from t2i.plugins.models.biggan.config import BigGANConfig
from t2i.plugins.models.biggan.networks import BigGANGenerator, Discriminator, Projection


class GANTrainer(Trainer):
    """The GAN stage: each step updates D, then G, on the same fake images.

    G runs once a step. Its graph is kept for its own update. D takes generated and real images in
    one pass, as in the authors' code, but with the gradient penalty in two.

    Args:
        config: The model's settings.
        networks: The model's networks.
    """

    def __init__(self, config: BigGANConfig, networks: Networks) -> None:
        generator = networks.generator
        assert isinstance(generator, BigGANGenerator)
        self.config = config
        self.generator = generator
        self.discriminator = Discriminator(config)
        self.output = Projection(config, networks.text_encoder.shape.sentence)
        self.critic = Critic(
            "discriminator",
            {"discriminator": self.discriminator, "output": self.output},
            features=self.discriminator,
            matching=self.output,
            own=self.hinge,
            own_generator=lambda seen: hinge_generator(
                self.output(self.discriminator(seen.generated), seen.condition)
            ),
            mismatched=config.wrong_pairs,
            others=self.orthogonality,
        )
        self.remedies = Remedies(config, [self.critic])
        self.modules = {"generator": generator, **self.critic.modules, **self.remedies.modules}
        if config.penalty_k or config.loss != "own":
            # The penalty differentiates through their backward pass. Other losses have several
            # passes before one backward pass: compiled, it would recompute with spectral norm's
            # vectors of the last.
            self.eager = ("discriminator", "output")
        self.optimizers = adam_pair(
            config, generator.parameters(), self.critic.parameters(), config.adam_eps
        )

    def step(self, batch: Batch, engine: Engine) -> Losses:
        config, sentence = self.config, batch.text.sentence.detach()
        fake = self.draw(batch)
        seen = self.remedies.seen(self.critic, batch, engine, batch.images, fake, sentence)
        losses = self.remedies.update(seen)

        losses["generator"] = loss = self.remedies.adversarial(seen)
        loss = with_outline(loss, losses, config.outline, [fake], batch.images)
        if config.ortho_g:
            loss = loss + config.ortho_g * orthogonal_regularisation(self._drawing_matrices())
        self.remedies.update_generator("generator", loss, batch, engine)
        return losses

    def hinge(self, seen: Seen, penalised: bool) -> tuple[Tensor, Losses]:
        """Compute D's loss: the hinge loss, and the penalties that have a weight.

        Args:
            seen: What D sees.
            penalised: Whether the matching-aware penalty may take part.

        Returns:
            The loss, and what the log shows.
        """
        config, n = self.config, len(seen.images)
        images, matching, fake = seen.images, seen.condition, seen.generated
        penalised = penalised and config.penalty_k > 0
        if penalised:  # its double backward pass leaves the generated images out
            images, matching = images.detach().requires_grad_(), matching.clone().requires_grad_()
            features = torch.cat([self.discriminator(fake), self.discriminator(images)])
        else:
            features = self.discriminator(torch.cat([fake, images]))
        sentences = torch.cat([seen.condition, matching])
        if config.wrong_pairs:
            features = torch.cat([features, features[n:]])
            sentences = torch.cat([sentences, seen.mismatched])
        judged, real, *wrong = torch.split(self.output(features, sentences), n)
        if wrong:
            loss = hinge_discriminator(real, judged, wrong[0])
        else:
            loss = (1 - real).relu().mean() + (1 + judged).relu().mean()
        losses: Losses = {"discriminator": loss, "real": real.mean(), "fake": judged.mean()}
        if wrong:
            losses["mismatched"] = wrong[0].mean()
        if penalised:
            losses["penalty"] = penalty = matching_aware_penalty(
                real, [images, matching], config.penalty_k, config.penalty_p, config.pack
            )
            loss = loss + penalty
        terms = self.orthogonality(seen)
        return torch.stack([loss, *terms.values()]).sum(), losses | terms

    def orthogonality(self, seen: Seen) -> Losses:
        """Compute D's orthogonal regularisation.

        Args:
            seen: Not used.

        Returns:
            The weighted term by its name. Nothing if it has no weight.
        """
        if not self.config.ortho_d:
            return {}
        term = orthogonal_regularisation(self._judging_matrices())
        return {"orthogonality": self.config.ortho_d * term}

    def _drawing_matrices(self) -> list[Tensor]:
        """G's weights that the orthogonal regularisation covers: not the shared embedding."""
        shared = self.generator.shared.weight
        return [p for p in self.generator.parameters() if p.ndim >= 2 and p is not shared]

    def _judging_matrices(self) -> list[Tensor]:
        """D's weights that it covers. The embedding is a table, as in the authors' code."""
        layers = [*self.discriminator.parameters(), self.output.score.weight]
        return [*(p for p in layers if p.ndim >= 2), self.output.embed.weight.t()]

    def draw(self, batch: Batch) -> Tensor:
        """Generate images for a batch.

        Args:
            batch: The batch, with its captions and its noise.

        Returns:
            Images, float (B, 3, H, H). No gradient reaches the text encoder.
        """
        z = batch.noise.normal("z", 0, self.generator.noise_shape)
        images: Tensor = self.generator(z, batch.text.detach())
        return images

    def finish(self, batches: Callable[[], Batch]) -> None:
        recalibrate(self.generator, self.draw, batches, self.config.recalibrate)


def stages(config: BigGANConfig, text_encoder: TextEncoder) -> list[Stage]:
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
