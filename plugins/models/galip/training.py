"""Training of GALIP: contrastive pretraining of text encoder and CLIP, then the GAN.

The first stage trains those of the two that are trainable. It is left out if neither is.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.clip.contrast import ClipMatcher
from t2i.plugins.common.gan.losses.hinge import hinge_generator, penalised_hinge
from t2i.plugins.common.gan.losses.outline import with_outline
from t2i.plugins.common.gan.optimizers import adam_pair
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.seam import Remedies
from t2i.plugins.common.gan.remedies.seen import Seen, listed
from t2i.plugins.common.text.contrastive import MatchingTrainer
from t2i.plugins.models.galip.config import GALIPConfig
from t2i.plugins.models.galip.networks import (
    Discriminator,
    GALIPGenerator,
    QualityAssessor,
    sentences,
)


def pretraining(config: GALIPConfig, networks: Networks) -> Trainer:
    """Return the trainer of stage `clip`: it aligns image embeddings with sentence vectors.

    It trains a fresh CLIP, a trainable text encoder, or both.

    Args:
        config: The model's settings.
        networks: The model's networks. CLIP becomes trainable here if it is a fresh one.

    Returns:
        The trainer.
    """
    generator = networks.generator
    assert isinstance(generator, GALIPGenerator)
    generator.clip.requires_grad_(config.clip.weights is None)
    matcher = ClipMatcher(generator.clip)
    return MatchingTrainer(
        networks.text_encoder, matcher, lr=config.clip_lr, lr_text=config.text_lr
    )


class GANTrainer(Trainer):
    """The GAN stage: each step updates D, then G, on the same fake images.

    G runs once a step, and so does CLIP on G's images. CLIP's features of real images are computed
    without a graph: MA-GP takes gradients at these features, not through CLIP.

    Args:
        config: The model's settings.
        networks: The model's networks. CLIP is frozen here.
    """

    eager = ("discriminator", "assessor")  # MA-GP differentiates through their backward pass

    def __init__(self, config: GALIPConfig, networks: Networks) -> None:
        generator = networks.generator
        assert isinstance(generator, GALIPGenerator)
        self.config = config
        self.generator = generator
        self.clip = generator.clip.requires_grad_(False)
        self.discriminator = Discriminator(config, self.clip)
        self.assessor = QualityAssessor(
            config, networks.text_encoder.shape.sentence, self.clip.grid
        )
        self.modules = {
            "generator": generator,
            "discriminator": self.discriminator,
            "assessor": self.assessor,
        }
        self.critic = Critic(
            "discriminator",
            {"discriminator": self.discriminator, "assessor": self.assessor},
            features=self.discriminator,
            matching=lambda features, e: self.assessor(features, e)[0],
            own=self.hinge,
            own_generator=lambda seen: hinge_generator(self._scores(seen)),
        )
        self.remedies = Remedies(config, [self.critic])
        self.modules |= self.remedies.modules
        drawing = [p for p in generator.parameters() if p.requires_grad]
        self.optimizers = adam_pair(config, drawing, self.critic.parameters())

    def step(self, batch: Batch, engine: Engine) -> Losses:
        text = batch.text.detach()
        e = sentences(self.config, text)
        fake = self.generator(batch.noise.normal("z", 0, self.generator.noise_shape), text)
        real_view, view = self.remedies.augmented(self.critic, batch, batch.images, fake)
        maps, embedding = self.clip.maps_and_embedding(view, self.config.feature_blocks)
        if view is not fake:  # the similarity is that of the image itself
            embedding = self.clip.embedding(fake)
        with torch.no_grad():
            real_maps = self.clip.maps(real_view, self.config.feature_blocks)
            real = [*self._pixels(real_view), *real_maps]
        seen = self.remedies.packed(
            self.critic, batch, engine, real, [*self._pixels(view), *maps], e
        )
        losses = self.remedies.update(seen)
        losses["generator"] = adversarial = self.remedies.adversarial(seen)
        losses["similarity"] = F.cosine_similarity(embedding, e).mean()
        loss = adversarial - self.config.similarity * losses["similarity"]
        loss = with_outline(loss, losses, self.config.outline, [fake], batch.images)
        self.remedies.update_generator("generator", loss, batch, engine)
        return losses

    def _pixels(self, images: Tensor) -> list[Tensor]:
        """Return the map of pixels that the discriminator sees, if it sees one."""
        return [self.clip.pixels(images)] if self.config.judge_pixels else []

    def _scores(self, seen: Seen) -> Tensor:
        """Return the scores of generated images."""
        (scores,) = self.assessor(self.discriminator(listed(seen.fake)), seen.condition)
        judged: Tensor = scores
        return judged

    def hinge(self, seen: Seen, penalised: bool) -> tuple[Tensor, Losses]:
        """Compute the discriminator's loss: hinge with mismatched pairs, and MA-GP.

        Source: thesis 2.17.

        Args:
            seen: What the discriminator sees: CLIP's features.
            penalised: Whether MA-GP belongs to it.

        Returns:
            The loss, a scalar, and what the log shows.
        """
        real, matching = [f.detach() for f in listed(seen.real)], seen.condition
        if penalised:
            real = [f.requires_grad_() for f in real]
            matching = matching.clone().requires_grad_()
        matched, mismatched = self.assessor(self.discriminator(real), matching, seen.mismatched)
        judged = self._scores(seen)
        inputs = [*real, matching] if penalised else None
        c = self.config
        return penalised_hinge(
            (matched, judged, mismatched), inputs, c.penalty_k, c.penalty_p, c.pack
        )


def stages(config: GALIPConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Return the stages: contrastive pretraining, then the GAN.

    The pretraining is left out if CLIP has pretrained weights and the text encoder is frozen. What
    it trains is frozen in the GAN stage.

    Args:
        config: The model's settings.
        text_encoder: The text encoder.

    Returns:
        The stages `clip` and `gan`, or `gan` alone.
    """
    gan = Stage("gan", 1 - config.text_share, partial(GANTrainer, config))
    if config.clip.weights is not None and not text_encoder.trainable:
        return [gan]
    own = {"batch_size": config.text_batch_size or config.batch_size}
    return [Stage("clip", config.text_share, partial(pretraining, config), own), gan]
