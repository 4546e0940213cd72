"""Training of XMC-GAN: contrastive pretraining of a trainable text encoder, then the GAN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.gan.blocks.batchnorm import keep_statistics, recompute_batchnorm
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

    def text(self, judged: Judged, n: int) -> dict[str, Tensor]:
        """Compute the losses of the first images with their captions, those that have a weight.

        Args:
            judged: What the discriminator returned.
            n: Number of images. They come first.

        Returns:
            The losses "words" and "sentence".
        """
        losses = {}
        if judged.regions is not None:
            losses["words"] = self.regions(judged.regions[:n])
        if self.config.sentence_contrast:
            losses["sentence"] = self.vectors(judged.features[:n], judged.sentence)
        return losses


class GANTrainer(Trainer):
    """The GAN stage: a step updates D `critic_steps` times, each on its own part of the batch.

    With the last part G is updated, too. Both get the gradients at the weights before the update of
    either, as in the authors' code.

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
        self.modules = {"generator": generator, "discriminator": self.discriminator}
        self.optimizers = adam_pair(
            config, generator.parameters(), self.discriminator.parameters()
        )

    def step(self, batch: Batch, engine: Engine) -> Losses:
        text, z = batch.text.detach(), batch.noise.normal("z", 0, self.generator.noise_shape)
        n = len(z) // self.config.critic_steps
        *early, last = (slice(i, i + n) for i in range(0, len(z) - n + 1, n))
        for part in early:
            with torch.no_grad(), keep_statistics(self.generator):
                fake = self.generator(z[part], text[part])
            contrasts = Contrasts(self.config, text[part], engine)
            judged = self._judged(batch.images[part], fake, text[part])
            losses = self._discriminator_losses(judged, contrasts, engine)
            engine.update("discriminator", self._weighted(losses))

        images, text = batch.images[last], text[last]
        contrasts = Contrasts(self.config, text, engine)
        fake = self.generator(z[last], text)
        with frozen(self.discriminator):  # G's pass iterates to the same sigma as D's
            seen: Judged = self.discriminator(fake, text.sentence)
        judged = self._judged(images, fake.detach(), text)
        losses = self._discriminator_losses(judged, contrasts, engine)

        fooling = {"generator": hinge_generator(seen.scores(slice(None), seen.sentence))}
        fooling |= self._generator_contrasts(seen, judged, contrasts, images, fake)
        reported = {f"fake_{name}": loss for name, loss in fooling.items() if name != "generator"}
        reported |= {**losses, "generator": fooling["generator"]}
        loss = with_outline(
            self._weighted(fooling), reported, self.config.outline, [fake], images
        )
        engine.update("generator", loss)
        engine.update("discriminator", self._weighted(losses))
        return reported

    def _judged(self, real: Tensor, fake: Tensor, text: TextFeatures) -> Judged:
        """Run D once on real and generated images, real ones first."""
        judged: Judged = self.discriminator(torch.cat([real, fake]), text.sentence)
        return judged

    def _discriminator_losses(
        self, judged: Judged, contrasts: Contrasts, engine: Engine
    ) -> Losses:
        """Return D's hinge loss, and the contrastive losses of real images."""
        n, share = len(judged.sentence), self.config.mismatched
        real = judged.scores(slice(n), judged.sentence)
        fake = judged.scores(slice(n, None), judged.sentence)
        hinge = (1 - real).relu().mean() + (1 - share) * (1 + fake).relu().mean()
        if share:
            wrong = judged.scores(slice(n), engine.shifted(judged.sentence))
            hinge = hinge + share * (1 + wrong).relu().mean()
        return {"discriminator": hinge, **contrasts.text(judged, n)}

    def _generator_contrasts(
        self, seen: Judged, judged: Judged, contrasts: Contrasts, real: Tensor, fake: Tensor
    ) -> Losses:
        """Return the contrastive losses of generated images, those that have a weight."""
        losses = contrasts.text(seen, len(fake))
        if self.config.image_contrast:
            f = judged.features[: len(real)].detach()
            losses["images"] = contrasts.vectors(seen.features, f)
        if self.image_net is not None:
            with torch.no_grad():
                vectors = self.image_net(real)
            losses["frozen"] = contrasts.vectors(vectors, self.image_net(fake))
        return losses

    def _weighted(self, losses: Losses) -> Tensor:
        """Return the weighted sum of losses."""
        weights = {
            "words": self.config.word_contrast,
            "sentence": self.config.sentence_contrast,
            "images": self.config.image_contrast,
            "frozen": self.config.frozen_contrast,
        }
        return torch.stack([weights.get(name, 1.0) * loss for name, loss in losses.items()]).sum()

    def finish(self, batches: Callable[[], Batch]) -> None:
        """Recompute batch norm's statistics with the averaged weights (`recalibrate` batches).

        Without this they belong to the last weights.
        """
        if not self.config.recalibrate:
            return
        with recompute_batchnorm(self.generator):
            for _ in range(self.config.recalibrate):
                batch = batches()
                z = batch.noise.normal("z", 0, self.generator.noise_shape)
                self.generator(z, batch.text)


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
