"""Training of XMC-GAN: contrastive pretraining of a trainable text encoder, then the GAN."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor

from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.gan.blocks.batchnorm import keep_statistics, recalibrate
from t2i.plugins.common.gan.blocks.spectral import frozen
from t2i.plugins.common.gan.losses.contrastive import (
    contrast,
    equal_rows,
    vector_scores,
    word_scores,
)
from t2i.plugins.common.gan.losses.hinge import hinge_generator
from t2i.plugins.common.gan.losses.outline import with_outline
from t2i.plugins.common.gan.optimizers import adam_pair
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.seam import Remedies
from t2i.plugins.common.gan.remedies.seen import Seen
from t2i.plugins.common.text.contrastive import text_stages
from t2i.plugins.models.xmcgan.config import XMCGANConfig
from t2i.plugins.models.xmcgan.networks import Discriminator, Judged, XMCGANGenerator


class Contrasts:
    """The contrastive losses of a batch of captions.

    All rows are compared with all rows of the global batch.

    Args:
        config: Temperatures and weights.
        text: Features of the B captions.
        engine: The engine, which gathers the rows of all processes.
    """

    def __init__(self, config: XMCGANConfig, text: TextFeatures, engine: Engine) -> None:
        self.config, self.gathered = config, engine.gathered
        self.words, self.mask = (
            (engine.gathered(text.words), engine.gathered(text.mask))
            if config.word_contrast
            else (text.words, text.mask)
        )
        sentences = engine.gathered(text.sentence) if config.mask_equal else None
        self.alike = None if sentences is None else equal_rows(sentences)

    def vectors(self, a: Tensor, b: Tensor) -> Tensor:
        """Compute the contrastive loss of vectors, of images with sentences or with images.

        Args:
            a: Vectors, float (B, C).
            b: The vectors that match them, float (B, C).

        Returns:
            The loss, a scalar.
        """
        a, b = self.gathered(a), self.gathered(b)
        return contrast(vector_scores(a, b, self.config.temperature), self.alike)

    def regions(self, regions: Tensor) -> Tensor:
        """Compute the contrastive loss of regions with the captions' words.

        Args:
            regions: Region vectors of the B images, float (B, R, Dw).

        Returns:
            The loss, a scalar.
        """
        c = self.config
        scores = word_scores(
            self.gathered(regions), self.words, self.mask, c.word_sharpness, c.word_pooling
        )
        return contrast(c.word_scale * scores, self.alike)

    def text(self, judged: Judged) -> Losses:
        """Compute the losses of images with their captions, those that have a weight.

        Args:
            judged: What the discriminator returned for the B images.

        Returns:
            The losses "words" and "sentence".
        """
        losses: Losses = {}
        if judged.regions is not None:
            losses["words"] = self.regions(judged.regions)
        if self.config.sentence_contrast:
            losses["sentence"] = self.vectors(judged.features, judged.sentence)
        return losses


class GANTrainer(Trainer):
    """The GAN stage: a step updates D, and in every `critic_steps`-th step G, too.

    Both take their gradients at the weights before either's update, as in the authors' code. So G
    is updated first. Its pass through D iterates D's spectral norm to the same sigma as D's own
    pass, which alone stores its vectors.

    Args:
        config: The model's settings.
        networks: The model's networks. The helper "image_net" is frozen.
    """

    def __init__(self, config: XMCGANConfig, networks: Networks) -> None:
        generator = networks.generator
        assert isinstance(generator, XMCGANGenerator)
        self.config, self.generator = config, generator
        self.image_net = networks.helpers.get("image_net")
        self.discriminator = Discriminator(config, networks.text_encoder.shape)
        self.critic = Critic(
            "discriminator",
            {"discriminator": self.discriminator},
            features=self.discriminator.features,
            matching=self.discriminator.matching,
            own=self._own,
            own_generator=self._own_generator,
            mismatched=config.mismatched > 0,
            others=self._others,
        )
        self.remedies = Remedies(
            config, [self.critic], {"pack": "its losses compare single images"}
        )
        # Of this step alone: D's pass, where G's losses needed it, and what G's losses were.
        self.judged: Judged | None = None
        self.fooled: Losses = {}
        self.modules = {
            "generator": generator,
            "discriminator": self.discriminator,
            **self.remedies.modules,
        }
        # G's pass through D comes before D's own, and its backward pass after that. Compiled, it
        # would recompute with the vectors of spectral norm that D's own pass has stored.
        self.eager = ("discriminator",)
        self.optimizers = adam_pair(config, generator.parameters(), self.critic.parameters())

    def step(self, batch: Batch, engine: Engine) -> Losses:
        text, z = batch.text.detach(), batch.noise.normal("z", 0, self.generator.noise_shape)
        moves = self.remedies.moves(batch)
        with ExitStack() as alone:  # what D's steps alone leave no trace of
            if not moves:
                alone.enter_context(torch.no_grad())
                alone.enter_context(keep_statistics(self.generator))
            fake = self.generator(z, text)
        seen = self.remedies.seen(self.critic, batch, engine, batch.images, fake, text.sentence)
        loss, losses = self._fooling(seen, moves)
        with torch.set_grad_enabled(moves):
            if self.image_net is not None:
                losses["fake_frozen"] = self._frozen(seen, fake)
                loss = loss + self.config.frozen_contrast * losses["fake_frozen"]
            loss = with_outline(loss, losses, self.config.outline, [fake], batch.images)
        self.remedies.update_generator("generator", loss, batch, engine)
        losses |= self.remedies.update(seen)
        self.judged, self.fooled = None, {}
        return losses

    # --- the generator's losses -------------------------------------------------------------------

    def _fooling(self, seen: Seen, moves: bool) -> tuple[Tensor, Losses]:
        """Return G's loss at D, and what the log shows. Without `moves`, it is for the log."""
        if self.config.loss == "own" and not moves:
            self.judged = self._judge(seen.for_discriminator())
            with torch.no_grad():
                losses = self._fooled(self.judged[len(seen.images) :], seen)
            return self._total(losses), _named(losses)
        loss = self.remedies.adversarial(seen)
        if self.config.loss == "own":
            return loss, self.fooled
        with torch.set_grad_enabled(moves):
            losses = self._contrasts(self._seen_by_generator(seen), seen)
            return loss + self._total(losses), _named({"generator": loss, **losses})

    def _own_generator(self, seen: Seen) -> Tensor:
        """Return G's hinge loss with its contrastive losses at D."""
        losses = self._fooled(self._seen_by_generator(seen), seen)
        self.fooled = _named(losses)
        return self._total(losses)

    def _seen_by_generator(self, seen: Seen) -> Judged:
        """Run D on generated images, without moving the vectors of its spectral norm."""
        with frozen(self.discriminator):
            judged: Judged = self.discriminator(seen.generated, seen.condition)
        return judged

    def _fooled(self, judged: Judged, seen: Seen) -> Losses:
        return {"generator": hinge_generator(judged.scores()), **self._contrasts(judged, seen)}

    def _contrasts(self, judged: Judged, seen: Seen) -> Losses:
        """Return the contrastive losses of generated images at D, those that have a weight."""
        contrasts = Contrasts(self.config, seen.batch.text.detach(), seen.engine)
        losses = contrasts.text(judged)
        if self.config.image_contrast:
            losses["images"] = contrasts.vectors(judged.features, self._real_features(seen))
        return losses

    def _real_features(self, seen: Seen) -> Tensor:
        """Return D's features of real images: those of D's own pass, where there is one."""
        if self.config.unroll or self.config.loss != "own":
            with torch.no_grad(), frozen(self.discriminator):
                return self.discriminator.features(seen.images)[0]
        if self.judged is None:
            with torch.enable_grad():
                self.judged = self._judge(seen.for_discriminator())
        return self.judged.features[: len(seen.images)].detach()

    def _frozen(self, seen: Seen, fake: Tensor) -> Tensor:
        """Return the contrastive loss of generated and real images at the frozen network."""
        assert self.image_net is not None
        with torch.no_grad():
            vectors = self.image_net(seen.batch.images)
        contrasts = Contrasts(self.config, seen.batch.text.detach(), seen.engine)
        return contrasts.vectors(vectors, self.image_net(fake))

    # --- the discriminator's losses ---------------------------------------------------------------

    def _judge(self, seen: Seen) -> Judged:
        """Run D once on real and generated images, real ones first."""
        both = torch.cat([seen.images, seen.generated])
        judged: Judged = self.discriminator(both, seen.condition)
        return judged

    def _own(self, seen: Seen, penalised: bool) -> tuple[Tensor, Losses]:
        """Return D's hinge loss with the contrastive losses of real images."""
        n, share = len(seen.images), self.config.mismatched
        ready = self.judged if penalised else None
        judged = self._judge(seen) if ready is None else ready
        real, fake = judged[:n], judged[n:]
        hinge = (1 - real.scores()).relu().mean() + (1 - share) * (1 + fake.scores()).relu().mean()
        if share:
            wrong = real.scores(seen.engine.shifted(real.sentence))
            hinge = hinge + share * (1 + wrong).relu().mean()
        contrasts = Contrasts(self.config, seen.batch.text.detach(), seen.engine)
        losses = {"discriminator": hinge, **contrasts.text(real)}
        return self._total(losses), losses

    def _others(self, seen: Seen) -> Losses:
        """Return the weighted contrastive losses of real images: what other losses keep."""
        judged: Judged = self.discriminator(seen.images, seen.condition)
        contrasts = Contrasts(self.config, seen.batch.text.detach(), seen.engine)
        losses = contrasts.text(judged)
        return {name: self._weight(name) * loss for name, loss in losses.items()}

    def _total(self, losses: Losses) -> Tensor:
        """Return the weighted sum of losses."""
        if not losses:
            return torch.zeros((), device=self.generator.start.weight.device)
        return torch.stack([self._weight(name) * loss for name, loss in losses.items()]).sum()

    def _weight(self, name: str) -> float:
        weights = {
            "words": self.config.word_contrast,
            "sentence": self.config.sentence_contrast,
            "images": self.config.image_contrast,
        }
        return weights.get(name, 1.0)

    def finish(self, batches: Callable[[], Batch]) -> None:
        recalibrate(self.generator, self._sampled, batches, self.config.recalibrate)

    def _sampled(self, batch: Batch) -> Tensor:
        z = batch.noise.normal("z", 0, self.generator.noise_shape)
        images: Tensor = self.generator(z, batch.text)
        return images


def _named(losses: Losses) -> Losses:
    """Name the losses of generated images as the log shows them."""
    return {name if name == "generator" else f"fake_{name}": x for name, x in losses.items()}


def stages(config: XMCGANConfig, text_encoder: TextEncoder) -> list[Stage]:
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
