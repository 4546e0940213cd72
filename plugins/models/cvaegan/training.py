"""Training of CVAE-GAN: a trainable text encoder is pretrained first, then all four networks.

Source: Bao et al. 2017, equations 2 to 9 and algorithm 1.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Adam

from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.gan.blocks.batchnorm import recalibrate
from t2i.plugins.common.gan.losses.cross_entropy import cross_entropy
from t2i.plugins.common.gan.losses.outline import with_outline
from t2i.plugins.common.gan.optimizers import adam_pair
from t2i.plugins.common.text.contrastive import text_stages
from t2i.plugins.common.variational.bound import Latent, kl_by_map
from t2i.plugins.common.variational.gaussian import Gaussian
from t2i.plugins.models.cvaegan.config import CVAEGANConfig
from t2i.plugins.models.cvaegan.networks import (
    Centres,
    Discriminator,
    Encoder,
    Matcher,
    half_square,
    mean_gap,
)


def said(captions: Sequence[str], words: int) -> Tensor:
    """Say which centres the words of captions belong to.

    Args:
        captions: B captions.
        words: Number of centres. A word belongs to its checksum modulo this.

    Returns:
        1 where a caption has a word of a centre, else 0, float (B, words).
    """
    table = torch.zeros(len(captions), words)
    for row, caption in enumerate(captions):
        for word in re.findall(r"\w+", caption.lower()):
            table[row, zlib.crc32(word.encode()) % words] = 1.0
    return table


class CVAEGANTrainer(Trainer):
    """Updates G and E together, then D, then C, on the same images.

    E gets `kl` L_KL + `pairs` L_G, and G gets `pairs` L_G + `mean_d` L_GD + `mean_c` L_GC. One sum
    of all has these gradients, because L_KL does not depend on G, nor the means on E.

    G runs on latents of the posterior, and on those of the prior. D and C run once on the real
    images: G's loss reads their features, and then their own losses differentiate them.

    Args:
        config: The model's settings.
        networks: The model's networks.
    """

    def __init__(self, config: CVAEGANConfig, networks: Networks) -> None:
        generator = networks.generator
        assert isinstance(generator, OneShotGenerator)
        self.config, self.generator = config, generator
        sentence = networks.text_encoder.shape.sentence
        self.encoder = Encoder(config, sentence)
        self.discriminator = Discriminator(config)
        self.matcher = Matcher(config, sentence)
        self.centres = Centres(config.words)
        self.modules: dict[str, nn.Module] = {
            "generator": generator,
            "encoder": self.encoder,
            "discriminator": self.discriminator,
            "matcher": self.matcher,
            "centres": self.centres,
        }
        made = [*generator.parameters(), *self.encoder.parameters()]
        betas = (config.beta1, config.beta2)
        self.optimizers = {
            **adam_pair(config, made, self.discriminator.parameters()),
            "matcher": Adam(self.matcher.parameters(), config.lr_d, betas, fused=True),
        }

    def step(self, batch: Batch, engine: Engine) -> Losses:
        config, images, text = self.config, batch.images, batch.text.detach()
        noise, shape = batch.noise, self.generator.noise_shape
        q = self.encoder(images, text.sentence)
        z = q.draw(noise.normal("posterior", 0, shape))
        prior = noise.normal("z", 0, shape)
        # Two calls: with batch norm's statistics of both, the means would depend on E.
        reconstructed = self.generator(z, text)
        generated = self.generator(prior.to(z.dtype), text)
        both = torch.cat([reconstructed, generated])

        real_logits, real_d = self.discriminator(images)
        real_c = self.matcher(images)
        logits, both_d = self.discriminator(both)
        both_c = self.matcher(both)

        losses: Losses = {"kl": _kl(q)}
        losses["pixels"] = half_square(images, reconstructed)
        losses["features"] = half_square(real_d.detach(), both_d.chunk(2)[0]) + half_square(
            real_c.detach(), both_c.chunk(2)[0]
        )
        pairs = config.pixel * losses["pixels"] + config.pair_features * losses["features"]
        losses |= self._means(batch, engine, (real_d, real_c), (both_d, both_c))
        loss = (
            config.kl * losses["kl"] + config.pairs * pairs
            + config.mean_d * losses["mean_d"] + config.mean_c * losses["mean_c"]
        )  # fmt: skip
        losses["generator"] = cross_entropy(logits.chunk(2)[1], real=True)
        if config.adversarial:
            loss = loss + config.adversarial * losses["generator"]
        if config.matched:
            losses["matched"] = self._matching(both_c.chunk(2)[1], text.sentence, engine)
            loss = loss + config.matched * losses["matched"]
        loss = with_outline(loss, losses, config.outline, [generated], images)
        engine.update("generator", loss)

        judged, _ = self.discriminator(generated.detach())
        losses["discriminator"] = cross_entropy(real_logits, real=True) + cross_entropy(
            judged, real=False
        )
        engine.update("discriminator", losses["discriminator"])
        losses["matcher"] = self._matching(real_c, text.sentence, engine)
        engine.update("matcher", losses["matcher"])
        return losses

    def _matching(self, features: Tensor, sentence: Tensor, engine: Engine) -> Tensor:
        """Compute the matcher's cross entropy over the global batch."""
        vectors = self.matcher.embedded(features, sentence)
        return self.matcher.loss(*(engine.gathered(each) for each in vectors))

    def _means(
        self, batch: Batch, engine: Engine, real: tuple[Tensor, Tensor],
        both: tuple[Tensor, Tensor],
    ) -> Losses:  # fmt: skip
        """Move the centres of the features f_D and f_C, and compare them."""
        words = said(batch.captions, self.config.words).to(real[0])
        words = engine.gathered(words)
        seen_d, seen_c = (engine.gathered(f.detach()) for f in real)
        new_d, new_c = (engine.gathered(f.chunk(2)[1]) for f in both)
        move, config = self.centres.moved, self.config
        real_d, real_c = move("real", seen_d, seen_c, words, config.centre_decay)
        made_d, made_c = move("generated", new_d, new_c, words, config.generated_decay)
        present = words.sum(0) > 0
        return {"mean_d": mean_gap(real_d, made_d), "mean_c": mean_gap(real_c, made_c, present)}

    def finish(self, batches: Callable[[], Batch]) -> None:
        recalibrate(self.generator, self._sampled, batches, self.config.recalibrate)

    def _sampled(self, batch: Batch) -> Tensor:
        z = batch.noise.normal("z", 0, self.generator.noise_shape)
        images: Tensor = self.generator(z, batch.text)
        return images


def _kl(q: Gaussian) -> Tensor:
    """Compute KL(q || N(0, I)), summed over latents and averaged over images."""
    zeros = torch.zeros_like(q.mean)
    return kl_by_map([Latent(q, Gaussian(zeros, zeros), q.mean)]).sum(1).mean()


def stages(config: CVAEGANConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Return the stages: `text`, which is left out with a frozen text encoder, then `cvaegan`.

    Args:
        config: The model's settings.
        text_encoder: The text encoder.

    Returns:
        The stages in order.
    """
    return [
        *text_stages(config, text_encoder),
        Stage("cvaegan", 1 - config.text_share, partial(CVAEGANTrainer, config)),
    ]
