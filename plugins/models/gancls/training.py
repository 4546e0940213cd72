"""Training of GAN-CLS, GAN-INT and both: first a trainable text encoder, then the GAN.

Source: Reed et al. 2016, algorithm 1 and equation 5, with the weights of the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.gan.blocks.batchnorm import recalibrate
from t2i.plugins.common.gan.losses.cross_entropy import cross_entropy
from t2i.plugins.common.gan.losses.outline import with_outline
from t2i.plugins.common.gan.optimizers import adam_pair
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.packing import packed
from t2i.plugins.common.gan.remedies.seam import Remedies
from t2i.plugins.common.gan.remedies.seen import Seen
from t2i.plugins.common.text.contrastive import text_stages
from t2i.plugins.models.gancls.config import GANCLSConfig
from t2i.plugins.models.gancls.networks import Discriminator, GANCLSGenerator, PairHead


class GANTrainer(Trainer):
    """The GAN stage: each step updates D, then G.

    Args:
        config: The model's settings.
        networks: The model's networks.
    """

    def __init__(self, config: GANCLSConfig, networks: Networks) -> None:
        generator = networks.generator
        assert isinstance(generator, GANCLSGenerator)
        self.config, self.generator = config, generator
        self.discriminator = Discriminator(config)
        self.pair = PairHead(config, self.discriminator.width, networks.text_encoder.shape.sentence)
        self.critic = Critic(
            "discriminator",
            {"discriminator": self.discriminator, "pair": self.pair},
            features=self.discriminator,
            matching=self.pair,
            own=self.discriminator_loss,
            own_generator=self.generator_loss,
        )
        self.remedies = Remedies(config, [self.critic], refusals(config))
        self.modules = {"generator": generator, **self.critic.modules, **self.remedies.modules}
        self.optimizers = adam_pair(config, generator.parameters(), self.critic.parameters())

    def step(self, batch: Batch, engine: Engine) -> Losses:
        e = self.sentences(batch)
        texts = torch.cat([e, self.between(e, batch)]) if self.config.interp else e
        if self.config.fresh:
            with torch.no_grad():
                fake = self.draw("z", e, batch)
        else:
            images = self.draw("z", texts, batch)
            fake = images[: len(e)]
        seen = self.remedies.seen(self.critic, batch, engine, batch.images, fake, e)
        losses = self.remedies.update(seen)

        if self.config.fresh:
            images = self.draw("fresh z", texts, batch)
        if self.config.fresh or self.config.interp:
            seen = self.remedies.seen(self.critic, batch, engine, batch.images, images, texts)
        losses["generator"] = loss = self.remedies.adversarial(seen)
        if self.config.pixels:
            losses["pixels"] = F.l1_loss(images[: len(e)], batch.images)
            loss = loss + self.config.pixels * losses["pixels"]
        loss = with_outline(loss, losses, self.config.outline, [images[: len(e)]], batch.images)
        self.remedies.update_generator("generator", loss, batch, engine)
        return losses

    def discriminator_loss(self, seen: Seen, penalised: bool) -> tuple[Tensor, Losses]:
        """Compute D's loss and its parts.

        Each kind of images has its own statistics in D's batch norms, as in the authors' code.

        Args:
            seen: What D sees.
            penalised: Not used: there are no penalties.

        Returns:
            The loss, a scalar, and what the log shows.
        """
        features = self.discriminator(seen.images)
        real = self.pair(features, seen.condition)
        losses: Losses = {"real": cross_entropy(real, real=True)}
        if self.config.label < 1:
            smooth = (1 - self.config.label) * cross_entropy(real, real=False)
            losses["real"] = self.config.label * losses["real"] + smooth
        judged = self.pair(self.discriminator(seen.generated), seen.condition)
        losses["fake"] = cross_entropy(judged, real=False)
        loss = losses["real"] + self.config.weight_of_fakes * losses["fake"]
        if self.config.cls:
            # Image i with text i - 1: the same pairs as text i with the image of the next row.
            losses["wrong"] = self.wrong_loss(self.pair(features, seen.mismatched), seen)
            loss = loss + self.config.cls * losses["wrong"]
        losses["discriminator"] = loss
        return loss, losses

    def wrong_loss(self, logits: Tensor, seen: Seen) -> Tensor:
        """Compute the cross entropy of wrong pairs, of those of two classes where they are known.

        Args:
            logits: Logits of image i with the sentence of row i - 1, float (B,).
            seen: What D sees. The batch's extra "class_id" is used if there is one.

        Returns:
            The loss, a scalar. 0 if all pairs are of one class.
        """
        classes = seen.batch.extras.get("class_id")
        if not isinstance(classes, Tensor):
            return cross_entropy(logits, real=False)
        classes = packed(classes.unsqueeze(1), self.config.pack)
        differ = (classes != seen.engine.shifted(classes)).all(1).to(logits)
        return (F.softplus(logits) * differ).sum() / differ.sum().clamp(min=1)

    def generator_loss(self, seen: Seen) -> Tensor:
        """Compute the adversarial part of G's loss, and feature matching.

        Source: Reed et al. 2016, equation 5. The mean is over all images, also over those of
        interpolated sentences.

        Args:
            seen: What D sees: generated images, those of the batch first.

        Returns:
            The loss, a scalar.
        """
        count = len(seen.images)
        features = self.discriminator(seen.generated)
        each = F.softplus(-self.pair(features, seen.condition))
        loss = (each[:count].sum() + self.config.interp * each[count:].sum()) / len(each)
        if self.config.features:
            with torch.no_grad():
                wanted = self.discriminator(seen.images).mean(0)
            matched = F.mse_loss(features[:count].mean(0), wanted)
            loss = loss + self.config.features * matched
        return loss

    def sentences(self, batch: Batch) -> Tensor:
        """Return the sentence vector of each image: the mean over several of its captions.

        Args:
            batch: The batch.

        Returns:
            The vectors without gradients, float (B, D).
        """
        count = self.config.captions
        if count == 1 or not any(len(captions) > 1 for captions in batch.choices):
            return batch.text.sentence.detach()
        draws = batch.noise.uniform("captions", 0, (count,)).tolist()
        chosen = [
            captions[min(int(u * len(captions)), len(captions) - 1)]
            for captions, row in zip(batch.choices, draws, strict=True)
            for u in row
        ]
        vectors = batch.encode(chosen).sentence.detach()
        return vectors.reshape(-1, count, vectors.shape[1]).mean(1)

    def between(self, e: Tensor, batch: Batch) -> Tensor:
        """Interpolate the sentences of the first half of a batch with those of the second.

        Args:
            e: Sentence vectors, float (B, D).
            batch: The batch, for random numbers.

        Returns:
            (e_i + e_j) / 2, with `extrapolate` + a (e_j - e_i), a from U(-1, 1); float (B // 2, D).
        """
        half = len(e) // 2
        a, b = e[:half], e[half : 2 * half]
        middle = (a + b) / 2
        if not self.config.extrapolate:
            return middle
        share = 2 * batch.noise.uniform("extrapolate", 0, (1,))[:half].to(e) - 1
        return middle + share * (b - a)

    def draw(self, name: str, sentences: Tensor, batch: Batch) -> Tensor:
        """Generate images.

        Args:
            name: Name of the noise.
            sentences: Sentence vectors, float (N, D), of the B images of the batch and of up to B
                more.
            batch: The batch.

        Returns:
            Images, float (N, 3, H, H).
        """
        shape, more = self.generator.noise_shape, len(sentences) - len(batch.images)
        z = batch.noise.normal(name, 0, shape)
        if more:
            z = torch.cat([z, batch.noise.normal(name, 1, shape)[:more]])
        images: Tensor = self.generator(z, TextFeatures.of(sentence=sentences))
        return images

    def finish(self, batches: Callable[[], Batch]) -> None:
        recalibrate(self.generator, self._sampled, batches, self.config.recalibrate)

    def _sampled(self, batch: Batch) -> Tensor:
        return self.draw("z", self.sentences(batch), batch)


def refusals(config: GANCLSConfig) -> dict[str, str]:
    """Return the reasons for which some settings do not take every remedy.

    Args:
        config: The model's settings.

    Returns:
        A reason for each remedy that is refused.
    """
    refused: dict[str, str] = {}
    if config.interp:
        reason = "interpolated sentences (interp) have generated images and no real ones"
        refused |= dict.fromkeys(("loss", "unroll", "augment_images"), reason)
    if config.features:
        refused["loss"] = "feature matching (features) belongs to the model's own loss"
    return refused


def stages(config: GANCLSConfig, text_encoder: TextEncoder) -> list[Stage]:
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
