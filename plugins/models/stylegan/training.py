"""Training of StyleGAN2 with text and of StyleGAN-T, after a trainable text encoder's pretraining.

Each step updates D, then G, on the same fake images. Steps with a lazy penalty have one more update
of the network that it is for.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.clip.vision import ClipVision, build_clip
from t2i.plugins.common.fir import upfirdn2d
from t2i.plugins.common.gan.losses.outline import with_outline
from t2i.plugins.common.gan.remedies.critic import Critic
from t2i.plugins.common.gan.remedies.seam import Remedies
from t2i.plugins.common.gan.remedies.seen import Seen
from t2i.plugins.common.text.contrastive import text_stages
from t2i.plugins.models.stylegan.config import StyleGANConfig
from t2i.plugins.models.stylegan.discriminator import Discriminator
from t2i.plugins.models.stylegan.networks import StyleGANGenerator, sentences
from t2i.plugins.models.stylegan.penalties import PathLength, lazy_adam, r1_penalty
from t2i.plugins.models.stylegan.projected import (
    ClipEye,
    Eye,
    ProjectedDiscriminator,
    build_dino,
    seen_by,
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

    Raises:
        UserError: The weights of CLIP or DINO cannot be loaded, or do not fit, or the settings ask
            for a remedy that this discriminator does not take.
    """

    def __init__(self, config: StyleGANConfig, networks: Networks) -> None:
        generator, sentence = networks.generator, networks.text_encoder.shape.sentence
        assert isinstance(generator, StyleGANGenerator)
        self.config, self.generator = config, generator
        self.modules = {"generator": generator}
        clip = None
        if config.guidance or (config.discriminator == "projected" and config.eye == "clip"):
            clip = build_clip(config.clip, sentence, None, "stylegan")
            self.modules["clip"] = clip
        self.clip: ClipVision | None = clip if config.guidance else None
        self.eye: Eye | None = None
        self.discriminator: Discriminator | ProjectedDiscriminator
        if config.discriminator == "projected":
            self.eye = ClipEye(clip) if config.eye == "clip" and clip else build_dino(config)
            self.modules["eye"] = self.eye
            self.discriminator = ProjectedDiscriminator(config, self.eye, sentence)
        else:
            self.discriminator = Discriminator(config, sentence)
        self.modules["discriminator"] = self.discriminator
        self.path = PathLength(config.path_decay)
        if config.path_length:
            self.modules["path_length"] = self.path
        self.critic = Critic(
            "discriminator",
            {"discriminator": self.discriminator},
            features=self.discriminator,
            matching=self.discriminator.score,
            own=self.judged,
            own_generator=lambda seen: deceiving(self._fakes(seen), config.adversarial),
            mismatched=config.wrong_pairs,
        )
        self.remedies = Remedies(config, [self.critic])
        self.modules |= self.remedies.modules
        # A penalty counts for all the steps between two of its own.
        self.r1 = config.r1_every * config.r1 if config.loss == "own" else 0.0
        self.path_length = config.path_every * config.path_length
        # It has an update of its own, unless each step has it. The parts of a batch (`accumulate`)
        # add up to one update of a network: there it is part of the step's loss.
        self.lazy_r1 = bool(self.r1) and config.r1_every > 1 and config.accumulate == 1
        self.lazy_path = bool(self.path_length) and config.path_every > 1 and config.accumulate == 1
        # The penalties differentiate through a backward pass. The heads of the projected
        # discriminator have spectral norm, whose vectors move between two passes.
        judge = bool(self.r1) or config.discriminator == "projected"
        self.eager = ("discriminator",) * judge + ("generator",) * bool(config.path_length)
        betas = (config.beta1, config.beta2)
        self.optimizers = {
            "discriminator": lazy_adam(
                self.critic.parameters(), config.lr_d, betas,
                config.r1_every if self.lazy_r1 else None,
            ),
            "generator": lazy_adam(
                self._drawing(), config.lr_g, betas, config.path_every if self.lazy_path else None
            ),
        }  # fmt: skip

    def _drawing(self) -> list[nn.Parameter]:
        """Return the generator's parameters that are trained; the others are frozen."""
        synthesis = self.generator.synthesis
        if self.config.trained == "beyond64":
            self.generator.requires_grad_(False)
            synthesis.to_rgb.requires_grad_(True)
            for layer in synthesis.convolutions():
                layer.requires_grad_(layer.size > 64)
        return [p for p in self.generator.parameters() if p.requires_grad]

    def step(self, batch: Batch, engine: Engine) -> Losses:
        config, text = self.config, batch.text.detach()
        c = sentences(config, text)
        mapped = self.generator.mapped(self._z(batch, "z"), text)
        self.generator.follow(engine.gathered(mapped.detach()))
        ws = self._mixed(mapped, batch, text, "main")
        fake = self.generator.synthesise(ws, self._noises(batch, "main"))
        sigma = config.blur * max(0.0, 1 - batch.noise.at * batch.noise.total / config.blur_images)
        real, view = self.remedies.augmented(
            self.critic, batch, blurred(batch.images, sigma), blurred(fake, sigma)
        )
        with torch.no_grad():
            looks = self._look(real, batch)
        seen = self.remedies.packed(self.critic, batch, engine, looks, self._look(view, batch), c)

        losses = self.remedies.update(seen)
        if self.lazy_r1 and self._r1_is_due(batch):
            scores, images = self._reals(seen)
            losses["r1"] = r1_penalty(scores, images)
            engine.update("discriminator", self.r1 * losses["r1"])

        losses["generator"] = loss = self.remedies.adversarial(seen)
        if self.clip is not None:
            losses["guidance"] = self._guidance(self.clip, fake, text.sentence, batch)
            loss = loss + config.guidance * losses["guidance"]
        loss = with_outline(loss, losses, config.outline, [fake], batch.images)
        due = self._path_is_due(batch)
        if due and not self.lazy_path:
            loss = loss + self.path_length * self._path(batch, engine, text, losses)
        self.remedies.update_generator("generator", loss, batch, engine)
        if due and self.lazy_path:
            penalty = self._path(batch, engine, text, losses)
            engine.update("generator", self.path_length * penalty)
        return losses

    def _r1_is_due(self, batch: Batch) -> bool:
        return bool(self.r1) and batch.noise.at % self.config.r1_every == 0

    def _path_is_due(self, batch: Batch) -> bool:
        """Return whether this step has the path-length penalty: every so many steps of G do."""
        moves = batch.noise.at // self.config.critic_steps
        due = self.remedies.moves(batch) and moves % self.config.path_every == 0
        return bool(self.path_length) and due

    def judged(self, seen: Seen, penalised: bool) -> tuple[Tensor, Losses]:
        """Compute the discriminator's loss, with mismatched pairs if `wrong_pairs` is set.

        Args:
            seen: What the discriminator sees.
            penalised: Whether R1 belongs to it, in the steps whose loss it is part of.

        Returns:
            The loss, a scalar, and what the log shows.
        """
        kind = self.config.adversarial
        at_once = penalised and not self.lazy_r1 and self._r1_is_due(seen.batch)
        looks = seen.images.detach().requires_grad_() if at_once else seen.real
        features = self.discriminator(looks)
        real, fake = self.discriminator.score(features, seen.condition), self._fakes(seen)
        losses: Losses = {"real": real.mean(), "fake": fake.mean()}
        loss = adversarial(fake, kind, real=False)
        if self.config.wrong_pairs:
            wrong = self.discriminator.score(features, seen.mismatched)
            losses["mismatched"] = wrong.mean()
            loss = (loss + adversarial(wrong, kind, real=False)) / 2
        losses["discriminator"] = loss = loss + adversarial(real, kind, real=True)
        if at_once:
            assert isinstance(looks, Tensor)
            losses["r1"] = r1_penalty(real, looks)
            loss = loss + self.r1 * losses["r1"]
        return loss, losses

    def _look(self, images: Tensor, batch: Batch) -> Tensor | list[Tensor]:
        """Return what the discriminator receives: images, or maps of tokens."""
        if self.eye is None:
            return images
        crops = self.config.crop and images.shape[-1] > self.eye.image_size
        share = batch.noise.uniform("eye crop", 0, (3,)) if crops else None
        return seen_by(self.eye, self.config, images, share)

    def _fakes(self, seen: Seen) -> Tensor:
        """Return the scores of generated images."""
        scores: Tensor = self.discriminator.score(self.discriminator(seen.fake), seen.condition)
        return scores

    def _reals(self, seen: Seen) -> tuple[Tensor, Tensor]:
        """Return the scores of real images, and the images, which require gradients."""
        images = seen.images.detach().requires_grad_()
        features = self.discriminator(images)
        return self.discriminator.score(features, seen.condition.detach()), images

    def _z(self, batch: Batch, name: str) -> Tensor:
        return batch.noise.normal(name, 0, self.generator.noise_shape)

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

    def _path(self, batch: Batch, engine: Engine, text: TextFeatures, losses: Losses) -> Tensor:
        """Compute the path-length penalty of a part of the batch, on new images."""
        n = max(1, len(batch.images) // self.config.path_shrink)
        part = text[:n]
        mapped = self.generator.mapped(self._z(batch, "path z")[:n], part)
        ws = self._mixed(mapped, batch, part, "path")
        images = self.generator.synthesise(ws, self._noises(batch, "path", n))
        noise = batch.noise.normal("path noise", 0, images.shape[1:])[:n]
        lengths = self.path.lengths(images, ws, noise)
        penalty: Tensor = self.path(lengths, engine.gathered(lengths))
        losses["path_length"] = penalty
        return penalty

    @staticmethod
    def _guidance(clip: ClipVision, fake: Tensor, sentence: Tensor, batch: Batch) -> Tensor:
        """Compute the CLIP loss, of one random part of images above 64 pixels."""
        room = fake.shape[-1] - CROP
        if room > 0:
            corners = batch.noise.integers("guidance crop", 0, room + 1, (2,)).tolist()
            fake = torch.stack(
                [
                    image[:, y : y + CROP, x : x + CROP]
                    for image, (y, x) in zip(fake, corners, strict=True)
                ]
            )
        if clip.image_size >= CLIP_INPUT:
            fake = F.interpolate(fake, (CLIP_INPUT, CLIP_INPUT), mode="area")
        return squared_angle(clip.embedding(fake), sentence)


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
        Stage("gan", 1 - config.text_share, partial(GANTrainer, config)),
    ]
