"""Training of AttnGAN: DAMSM, then the GAN."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.gan.blocks.batchnorm import recompute_batchnorm
from t2i.plugins.common.gan.conditioning.augmentation import kl_loss
from t2i.plugins.common.gan.losses.cross_entropy import cross_entropy, discriminator_of_pairs_and_images
from t2i.plugins.common.gan.losses.outline import with_outline
from t2i.plugins.common.text.damsm import DamsmTrainer, ImageFeatures, damsm_losses
from t2i.plugins.common.text.image_encoder import check_source
from t2i.plugins.models.attngan.config import AttnGANConfig
from t2i.plugins.models.attngan.networks import AttnGANGenerator, Discriminator, GeneratorOutput


def discriminator_loss(d: Discriminator, real: Tensor, fake: Tensor, sentence: Tensor) -> Tensor:
    """Return the loss of one discriminator: (real_u + real)/2 + (fake_u + fake + wrong)/3.

    The index u marks the unconditional output. A wrong pair is an image with the next image's
    sentence; the last image is in no wrong pair. Real, fake and wrong ones go through the network
    separately, so its batch norms see one kind at a time.

    Args:
        d: The discriminator.
        real: Real images, float (B, 3, S, S), B of at least 2.
        fake: Generated images of the same shape, without gradients.
        sentence: Sentence vectors, float (B, D).

    Returns:
        The loss, a scalar.
    """
    x, x_fake = d(real), d(fake)
    right, made = d.conditional(x, sentence), d.conditional(x_fake, sentence)
    wrong = d.conditional(x[:-1], sentence[1:])
    return discriminator_of_pairs_and_images(
        right, made, wrong, d.unconditional(x), d.unconditional(x_fake)
    )


def generator_loss(d: Discriminator, fake: Tensor, sentence: Tensor) -> Tensor:
    """Return the generator's loss at one discriminator: -log D(x^) of both outputs, summed.

    Source: Xu et al. 2018, equation 4 (L_Gi), but not halved, as in the authors' code.

    Args:
        d: The discriminator.
        fake: Generated images, float (B, 3, S, S).
        sentence: Sentence vectors, float (B, D).

    Returns:
        The loss, a scalar.
    """
    x = d(fake)
    return cross_entropy(d.unconditional(x), real=True) + cross_entropy(
        d.conditional(x, sentence), real=True
    )


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


class GANTrainer(Trainer):
    """The GAN stage: each step updates every D_i, then G, on the same fake images.

    G runs once a step.

    Args:
        config: The model's settings.
        networks: The model's networks. Without the helper "image_encoder" L_DAMSM is left out.
    """

    def __init__(self, config: AttnGANConfig, networks: Networks) -> None:
        generator = networks.generator
        assert isinstance(generator, AttnGANGenerator)
        self.config, self.network, self.noise_shape = (
            config,
            generator.network,
            generator.noise_shape,
        )
        self.image_encoder = networks.helpers.get("image_encoder")
        width = networks.text_encoder.shape.sentence
        self.discriminators = [
            Discriminator(config, scale, width) for scale in range(config.scales)
        ]
        judges = {f"discriminator{i}": d for i, d in enumerate(self.discriminators)}
        self.modules: dict[str, nn.Module] = {"network": self.network, **judges}
        betas = (config.beta1, config.beta2)
        self.optimizers = {
            name: Adam(d.parameters(), config.lr_d, betas, fused=True) for name, d in judges.items()
        }
        self.optimizers["generator"] = Adam(
            self.network.parameters(), config.lr_g, betas, fused=True
        )

    def step(self, batch: Batch, engine: Engine) -> Losses:
        text = batch.text.detach()
        drawn: GeneratorOutput = self.network(batch.noise.normal("z", 0, self.noise_shape), text)
        losses: Losses = {}
        for (name, fake), d in zip(self._named(drawn), self.discriminators, strict=True):
            real = shrunk(batch.images, fake.shape[-1])
            losses[name] = discriminator_loss(d, real, fake.detach(), drawn.sentence)
            engine.update(name, losses[name])
        fooling = [
            generator_loss(d, x, drawn.sentence)
            for d, x in zip(self.discriminators, drawn.images, strict=True)
        ]
        losses["adversarial"] = torch.stack(fooling).sum()
        losses["kl"] = kl_loss(drawn.mean, drawn.logvar)
        loss = losses["adversarial"] + self.config.kl * losses["kl"]
        if self.image_encoder is not None and self.config.damsm_weight:
            losses["damsm"] = self._damsm(drawn.images[-1], text, batch)
            loss = loss + self.config.damsm_weight * losses["damsm"]
        loss = with_outline(loss, losses, self.config.outline, drawn.images, batch.images)
        engine.update("generator", loss)
        return losses

    @staticmethod
    def _named(drawn: GeneratorOutput) -> list[tuple[str, Tensor]]:
        return [(f"discriminator{i}", image) for i, image in enumerate(drawn.images)]

    def _damsm(self, images: Tensor, text: TextFeatures, batch: Batch) -> Tensor:
        """Return L_DAMSM of the largest images: how well they match their captions in the batch."""
        assert self.image_encoder is not None
        seen: ImageFeatures = self.image_encoder(images)
        words, sentence = damsm_losses(
            seen, text, self.config.damsm.smoothing, batch.extras.get("class")
        )
        return words + sentence

    def finish(self, batches: Callable[[], Batch]) -> None:
        """Recompute batch norm's statistics with the averaged weights (`recalibrate` batches).

        Without this they belong to the last weights.
        """
        if not self.config.recalibrate:
            return
        with recompute_batchnorm(self.network):
            for _ in range(self.config.recalibrate):
                batch = batches()
                self.network(batch.noise.normal("z", 0, self.noise_shape), batch.text)


def stages(config: AttnGANConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Return the stages: DAMSM, then the GAN.

    DAMSM is left out if the text encoder is frozen and the image encoder has weights or is left
    out. In stage `gan` both encoders are frozen: no optimizer holds their parameters.

    Args:
        config: The model's settings.
        text_encoder: The text encoder.

    Returns:
        The stages `damsm` and `gan`, or `gan` alone.

    Raises:
        UserError: DAMSM is to be trained, and its image encoder is left out or has no file of
            weights.
    """
    gan = Stage("gan", 1 - config.damsm_share, partial(GANTrainer, config))
    if not text_encoder.trainable and (
        config.image_encoder.kind == "none" or config.image_encoder.weights
    ):
        return [gan]
    check_source(config.image_encoder, "model 'attngan'")

    def pretraining(networks: Networks) -> Trainer:
        return DamsmTrainer(config.damsm, networks.text_encoder, networks.helpers["image_encoder"])

    return [
        Stage("damsm", config.damsm_share, pretraining, {"batch_size": config.damsm.batch_size}),
        gan,
    ]
