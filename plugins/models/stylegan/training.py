"""Training of StyleGAN2 with text and of StyleGAN-T, after a trainable text encoder's pretraining.

Each step updates D, then G, on the same fake images. Steps with a lazy penalty have one more update
of the network that it is for.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.clip.vision import ClipVision, build_clip
from t2i.plugins.common.fir import upfirdn2d
from t2i.plugins.common.gan.losses.outline import with_outline
from t2i.plugins.common.text.contrastive import text_stages
from t2i.plugins.models.stylegan.config import StyleGANConfig
from t2i.plugins.models.stylegan.discriminator import Discriminator
from t2i.plugins.models.stylegan.networks import StyleGANGenerator, sentences
from t2i.plugins.models.stylegan.penalties import PathLength, lazy_adam, r1_penalty
from t2i.plugins.models.stylegan.projected import (
    ClipEye,
    ProjectedDiscriminator,
    build_dino,
    seen,
)

CROP = 64  # pixels: the side of what CLIP sees of a larger image, as in StyleGAN-T's code
CLIP_INPUT = 224  # pixels: the size to which that is brought first


def adversarial(scores: Tensor, loss: str, *, real: bool) -> Tensor:
    """Compute the discriminator's loss of scores that all have the same label.

    Args:
        scores: The scores.
        loss: "softplus" or "hinge".
        real: Whether the label is "real".

    Returns:
        The loss, a scalar.
    """
    signed = -scores if real else scores
    return (F.softplus(signed) if loss == "softplus" else F.relu(1 + signed)).mean()


def deceiving(scores: Tensor, loss: str) -> Tensor:
    """Compute the generator's loss of the scores of its images.

    Args:
        scores: The scores.
        loss: "softplus" or "hinge".

    Returns:
        The loss, a scalar.
    """
    return F.softplus(-scores).mean() if loss == "softplus" else -scores.mean()


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Blur images. The weights of the filter are 2^-(d / sigma)^2 up to a distance of 3 sigma.

    Args:
        images: Images, float (B, 3, H, H).
        sigma: Distance in pixels at which the weights are one half. Below 1/3: no blur.

    Returns:
        Images of the same shape.
    """
    reach = math.floor(3 * sigma)
    if reach < 1:
        return images
    d = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    taps = torch.exp2(-(d / sigma).square())
    return upfirdn2d(images, taps / taps.sum(), padding=(reach, reach))


def squared_angle(images: Tensor, sentence: Tensor) -> Tensor:
    """Compute the squared angle between image and sentence vectors.

    Args:
        images: Image vectors, float (B, D).
        sentence: Sentence vectors, float (B, D).

    Returns:
        The mean over pairs, a scalar.
    """
    cosine = F.cosine_similarity(images, sentence, dim=1)
    # At 1 the arc cosine has no finite slope.
    return cosine.clamp(-1 + 1e-6, 1 - 1e-6).arccos().square().mean()


class GANTrainer(Trainer):
    """The GAN stage, with either discriminator.

    Args:
        config: The model's settings.
        networks: The model's networks.
        clip: CLIP's image encoder, for `guidance`. None: there is no such loss.
    """

    discriminator: nn.Module

    def __init__(self, config: StyleGANConfig, networks: Networks, clip: ClipVision | None) -> None:
        generator = networks.generator
        assert isinstance(generator, StyleGANGenerator)
        self.config, self.generator, self.clip = config, generator, clip
        self.path = PathLength(config.path_decay)
        self.modules = {"generator": generator}
        if config.path_length:
            self.modules["path_length"] = self.path
        if clip is not None:
            self.modules["clip"] = clip

    def optimize(self) -> None:
        """Make the optimizers, once the discriminator stands."""
        config = self.config
        betas = (config.beta1, config.beta2)
        judged = config.r1_every if config.r1 and config.r1_every > 1 else None
        drawn = config.path_every if config.path_length and config.path_every > 1 else None
        self.optimizers = {
            "discriminator": lazy_adam(
                self.discriminator.parameters(), config.lr_d, betas, judged
            ),
            "generator": lazy_adam(self._drawing(), config.lr_g, betas, drawn),
        }
        # The penalties differentiate through a backward pass.
        self.eager = ("discriminator",) * bool(config.r1) + ("generator",) * bool(config.path_length)

    def _drawing(self) -> list[nn.Parameter]:
        """Return the generator's parameters that are trained; the others are frozen."""
        synthesis = self.generator.synthesis
        if self.config.trained == "beyond64":
            self.generator.requires_grad_(False)
            synthesis.to_rgb.requires_grad_(True)
            for block in synthesis.blocks:
                block.requires_grad_(block[0].size > 64)  # type: ignore[index, operator]
        return [p for p in self.generator.parameters() if p.requires_grad]

    @abstractmethod
    def look(self, images: Tensor, batch: Batch) -> Sequence[Tensor]:
        """Compute what D receives of images, by what is not trained.

        Args:
            images: Images in [-1, 1], float (B, 3, H, H).
            batch: The batch, for its noise.

        Returns:
            Tensors with first axis B.
        """

    @abstractmethod
    def judge(self, looks: Sequence[Tensor]) -> Any:
        """Compute D's features, which do not depend on the text.

        Args:
            looks: What `look` returned.

        Returns:
            The features, for `score`.
        """

    def score(self, features: Any, c: Tensor) -> Tensor:
        """Score images with sentences.

        Args:
            features: What `judge` returned.
            c: Sentence vectors, float (B, D).

        Returns:
            Scores, float (B, n).
        """
        judge: Any = self.discriminator
        scores: Tensor = judge.score(features, c)
        return scores

    def step(self, batch: Batch, engine: Engine) -> Losses:
        config, text = self.config, batch.text.detach()
        c = sentences(config, text)
        sigma = config.blur * max(0.0, 1 - batch.noise.at * batch.noise.total / config.blur_images)
        mapped = self.generator.mapped(self._z(batch, "z"), text)
        self.generator.follow(engine.gathered(mapped.detach()))
        fake = self._draw(mapped, batch, text, "main")
        looks = self.look(blurred(fake, sigma), batch)

        losses = self._judge(batch, [x.detach() for x in looks], c, sigma, engine)
        losses["generator"] = loss = deceiving(self.score(self.judge(looks), c), config.loss)
        if self.clip is not None:
            losses["guidance"] = self._guidance(fake, text.sentence, batch)
            loss = loss + config.guidance * losses["guidance"]
        loss = with_outline(loss, losses, config.outline, [fake], batch.images)
        at_once = config.path_length and config.path_every == 1
        if at_once:
            loss = loss + config.path_length * self._path(batch, engine, text, losses)
        engine.update("generator", loss)
        if config.path_length and not at_once and batch.noise.at % config.path_every == 0:
            penalty = self._path(batch, engine, text, losses)
            engine.update("generator", config.path_every * config.path_length * penalty)
        return losses

    def _judge(
        self, batch: Batch, fake: list[Tensor], c: Tensor, sigma: float, engine: Engine
    ) -> Losses:
        """Update D."""
        config = self.config
        images = blurred(batch.images, sigma).detach()
        regular = bool(config.r1) and batch.noise.at % config.r1_every == 0
        at_once = regular and config.r1_every == 1
        looks = self.look(images.requires_grad_(at_once), batch)
        features = self.judge(looks)
        real, judged = self.score(features, c), self.score(self.judge(fake), c)
        loss_real = adversarial(real, config.loss, real=True)
        loss_fake = adversarial(judged, config.loss, real=False)
        losses: Losses = {"real": real.mean(), "fake": judged.mean()}
        if config.wrong_pairs:
            wrong = self.score(features, engine.shifted(c))
            losses["mismatched"] = wrong.mean()
            loss_fake = (loss_fake + adversarial(wrong, config.loss, real=False)) / 2
        losses["discriminator"] = loss = loss_real + loss_fake
        if at_once:
            losses["r1"] = r1_penalty(real, images)
            loss = loss + config.r1 * losses["r1"]
        engine.update("discriminator", loss)
        if regular and not at_once:
            images = images.detach().requires_grad_()
            scores = self.score(self.judge(self.look(images, batch)), c)
            losses["r1"] = r1_penalty(scores, images)
            engine.update("discriminator", config.r1_every * config.r1 * losses["r1"])
        return losses

    def _z(self, batch: Batch, name: str) -> Tensor:
        return batch.noise.normal(name, 0, self.generator.noise_shape)

    def _draw(self, mapped: Tensor, batch: Batch, text: TextFeatures, name: str) -> Tensor:
        """Generate images, with mixed styles and new noise."""
        return self.generator.synthesise(
            self._mixed(mapped, batch, text, name), self._noises(batch, name)
        )

    def _mixed(self, mapped: Tensor, batch: Batch, text: TextFeatures, name: str) -> Tensor:
        """Return latent vectors; some images have those of another z from a random layer on.

        The authors draw one layer for the batch. Here each image has its own, which depends on
        neither the batch nor the number of processes.
        """
        generator, noise = self.generator, batch.noise.scope(name)
        ws, n = generator.latents(mapped, text), len(mapped)
        if not self.config.mixing:
            return ws
        other = noise.normal("other z", 0, generator.noise_shape)[:n]
        layers = ws.shape[1]
        first = 1 + noise.integers("layer", 0, layers - 1)[:n]
        mixes = noise.uniform("mixes", 0, ())[:n] < self.config.mixing
        later = torch.arange(layers, device=ws.device) >= first[:, None]
        chosen = (later & mixes[:, None])[..., None]
        return torch.where(chosen, generator.latents(generator.mapped(other, text), text), ws)

    def _noises(self, batch: Batch, name: str, images: int | None = None) -> list[Tensor]:
        """Draw the noise of each layer that has some."""
        noise = batch.noise.scope(name)
        return [
            noise.normal("layer noise", i, (1, layer.size, layer.size))[:images]
            for i, layer in enumerate(self.generator.synthesis.noisy())
        ]

    def _path(
        self, batch: Batch, engine: Engine, text: TextFeatures, losses: Losses
    ) -> Tensor:
        """Compute the path-length penalty of a part of the batch, on new images."""
        n = max(1, len(batch.images) // self.config.path_shrink)
        part = text[:n]
        mapped = self.generator.mapped(self._z(batch, "path z")[:n], part)
        ws = self._mixed(mapped, batch, part, "path")
        images = self.generator.synthesise(ws, self._noises(batch, "path", n))
        noise = batch.noise.normal("path noise", 0, images.shape[1:])[:n]
        lengths = self.path.lengths(images, ws, noise)
        losses["path_length"] = penalty = self.path(lengths, engine.gathered(lengths))
        return penalty

    def _guidance(self, fake: Tensor, sentence: Tensor, batch: Batch) -> Tensor:
        """Compute the CLIP loss, of one random part of images above 64 pixels."""
        assert self.clip is not None
        room = fake.shape[-1] - CROP
        if room > 0:
            corners = batch.noise.integers("guidance crop", 0, room + 1, (2,)).tolist()
            fake = torch.stack(
                [
                    image[:, y : y + CROP, x : x + CROP]
                    for image, (y, x) in zip(fake, corners, strict=True)
                ]
            )
        if self.clip.image_size >= CLIP_INPUT:
            fake = F.interpolate(fake, (CLIP_INPUT, CLIP_INPUT), mode="area")
        return squared_angle(self.clip.embedding(fake), sentence)


class PixelTrainer(GANTrainer):
    """The GAN stage with StyleGAN2's discriminator.

    Args:
        config: The model's settings.
        networks: The model's networks.
        clip: CLIP's image encoder, for `guidance`. None: there is no such loss.
    """

    discriminator: Discriminator

    def __init__(self, config: StyleGANConfig, networks: Networks, clip: ClipVision | None) -> None:
        super().__init__(config, networks, clip)
        self.discriminator = Discriminator(config, networks.text_encoder.shape.sentence)
        self.modules["discriminator"] = self.discriminator
        self.optimize()

    def look(self, images: Tensor, batch: Batch) -> Sequence[Tensor]:
        return [images]

    def judge(self, looks: Sequence[Tensor]) -> Any:
        return self.discriminator(looks[0])


class ProjectedTrainer(GANTrainer):
    """The GAN stage with StyleGAN-T's discriminator.

    Args:
        config: The model's settings.
        networks: The model's networks.
        clip: CLIP's image encoder, for `guidance` or `eye`. None: neither.
    """

    discriminator: ProjectedDiscriminator

    def __init__(self, config: StyleGANConfig, networks: Networks, clip: ClipVision | None) -> None:
        super().__init__(config, networks, clip if config.guidance else None)
        if config.eye == "clip":
            assert clip is not None
            self.eye: Any = ClipEye(clip)
        else:
            self.eye = build_dino(config)
        self.discriminator = ProjectedDiscriminator(
            config, self.eye, networks.text_encoder.shape.sentence
        )
        self.modules |= {"discriminator": self.discriminator, "eye": self.eye}
        self.optimize()

    def look(self, images: Tensor, batch: Batch) -> Sequence[Tensor]:
        share = batch.noise.uniform("eye crop", 0, (3,)) if self.config.crop else None
        with torch.set_grad_enabled(images.requires_grad):
            return seen(self.config, self.eye, images, share)

    def judge(self, looks: Sequence[Tensor]) -> Any:
        return self.discriminator(looks)


def trainer(config: StyleGANConfig, networks: Networks) -> GANTrainer:
    """Make the trainer of the GAN stage.

    Args:
        config: The model's settings.
        networks: The model's networks.

    Returns:
        The trainer.

    Raises:
        UserError: The weights of CLIP or DINO cannot be loaded, or do not fit.
    """
    projected = config.discriminator == "projected"
    clip = None
    if config.guidance or (projected and config.eye == "clip"):
        clip = build_clip(config.clip, networks.text_encoder.shape.sentence, None, "stylegan")
    return (ProjectedTrainer if projected else PixelTrainer)(config, networks, clip)


def stages(config: StyleGANConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Return the stages: `text`, which is left out with a frozen text encoder, then `gan`.

    Args:
        config: The model's settings.
        text_encoder: The text encoder.

    Returns:
        The stages in order.
    """
    return [
        *text_stages(config, text_encoder),
        Stage("gan", 1 - config.text_share, partial(trainer, config)),
    ]
