"""Training of alignDRAW, and then of the network that sharpens its canvas."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import (
    Batch,
    Engine,
    Losses,
    Networks,
    Optimization,
    Stage,
    Trainer,
)
from t2i.plugins.common.gan.losses.cross_entropy import (
    cross_entropy,
    matching_aware_discriminator_loss,
)
from t2i.plugins.common.text.along import train_along
from t2i.plugins.common.variational.bound import kl_by_map, kl_weight, with_free_bits
from t2i.plugins.models.aligndraw.config import AlignDRAWConfig
from t2i.plugins.models.aligndraw.networks import AlignDRAWGenerator
from t2i.plugins.models.aligndraw.optimizer import RMSprop


class DrawingTrainer(Trainer):
    """Minimises the cross entropy of pixels plus the KL of all steps, both summed, per image.

    Args:
        config: The model's settings.
        networks: The model's networks.
    """

    def __init__(self, config: AlignDRAWConfig, networks: Networks) -> None:
        generator, text_encoder = networks.generator, networks.text_encoder
        assert isinstance(generator, AlignDRAWGenerator)
        self.config, self.generator, self.drawing = config, generator, generator.drawing
        self.modules: dict[str, nn.Module] = {"drawing": generator.drawing}
        groups: list[dict[str, Any]] = [{"params": list(generator.drawing.parameters())}]
        train_along(text_encoder, config.lr_text, self.modules, groups)
        if config.optimizer == "rmsprop":
            own = 0.0 if config.clip else None  # else the engine's grad_clip applies
            optimization = Optimization(RMSprop(groups, config.lr, config.clip), clip=own)
        else:
            adam = Adam(groups, config.lr, fused=True)
            optimization = Optimization(adam, clip=config.clip or None)
        self.optimizers = {"drawing": optimization}

    def step(self, batch: Batch, engine: Engine) -> Losses:
        x, shape = (batch.images + 1) / 2, (self.config.z_dim,)
        text = self.read(batch.text)
        canvas, latents = self.drawing.infer(
            x, text, lambda step: batch.noise.normal("z", step, shape)
        )
        pixels = pixel_loss(canvas, x)
        maps = kl_by_map(latents)
        kl = maps.sum(1).mean()
        counted = kl
        if self.config.free_bits:
            counted = with_free_bits(engine.gathered(maps), self.config.free_bits)
        engine.update("drawing", pixels + kl_weight(self.config, engine.progress) * counted)
        return {"pixels": pixels, "kl": kl, "bound": pixels + kl}

    def validation(self, batch: Batch, engine: Engine) -> Losses:
        return self.step(batch, engine)  # it changes nothing but through `engine.update`

    def read(self, text: TextFeatures) -> TextFeatures:
        """Let the two LSTMs read the captions, as in training.

        Args:
            text: Features of B captions.

        Returns:
            The text with what was read.
        """
        other = None
        if self.config.order == "authors":
            other = text[list(range(len(text) - 1, -1, -1))]
        return self.drawing.read_caption(text, other)


def pixel_loss(canvas: Tensor, x: Tensor) -> Tensor:
    """Compute the cross entropy of pixels.

    Args:
        canvas: Logits, float (B, 3, H, H).
        x: Images in [0, 1], of the same shape.

    Returns:
        The sum over values, averaged over images, a scalar.
    """
    return F.binary_cross_entropy_with_logits(canvas.to(x.dtype), x, reduction="sum") / len(x)


class Discriminator(nn.Module):
    """Scores whether an image is real and belongs to its caption.

    Args:
        width: Channels of the first layer.
        sentence: Width of sentence vectors.
        side: Height and width of the images in pixels.
    """

    def __init__(self, width: int, sentence: int, side: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(c_in, c_out, 4, stride=2, padding=1)
            for c_in, c_out in ((3, width), (width, 2 * width), (2 * width, 4 * width))
        )
        flat = 4 * width * (side // 8) ** 2
        self.joint = nn.Linear(flat + sentence, 4 * width)
        self.score = nn.Linear(4 * width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Compute features.

        Args:
            images: Images in [0, 1], float (B, 3, H, H).

        Returns:
            Features, float (B, flat).
        """
        h = images
        for conv in self.convs:
            h = F.leaky_relu(conv(h), 0.2)
        return h.flatten(1)

    def judged(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Score images with captions.

        Args:
            features: Features of images, float (B, flat).
            sentence: Sentence vectors, float (B, D).

        Returns:
            Logits, float (B,).
        """
        h = F.leaky_relu(self.joint(torch.cat([features, sentence], dim=1)), 0.2)
        score: Tensor = self.score(h).flatten()
        return score


class SharpeningTrainer(Trainer):
    """Trains the network that sharpens; the rest is frozen.

    It sharpens reconstructions, whose real images are known, and images from the prior, which only
    the discriminator scores.

    Source: Mansimov et al. 2016, section 3.5, for the network; its loss is ours.

    Args:
        config: The model's settings.
        networks: The model's networks.
    """

    def __init__(self, config: AlignDRAWConfig, networks: Networks) -> None:
        generator = networks.generator
        assert isinstance(generator, AlignDRAWGenerator)
        assert generator.sharpener is not None
        self.config, self.generator, self.sharpener = config, generator, generator.sharpener
        sharp = config.sharpen
        self.discriminator = Discriminator(
            sharp.df, networks.text_encoder.shape.sentence, config.image_size
        )
        self.modules: dict[str, nn.Module] = {
            "sharpener": self.sharpener, "discriminator": self.discriminator,
        }  # fmt: skip
        self.optimizers = {
            "sharpener": Adam(self.sharpener.parameters(), sharp.lr, (0.5, 0.999), fused=True),
            "discriminator": Adam(
                self.discriminator.parameters(), sharp.lr_d, (0.5, 0.999), fused=True
            ),
        }
        generator.sharpens.fill_(True)

    def step(self, batch: Batch, engine: Engine) -> Losses:
        sharp, x = self.config.sharpen, (batch.images + 1) / 2
        text = batch.text.detach()
        with torch.no_grad():
            blurred = self.blurred(batch, text, x)
        sentence = torch.cat([text.sentence, text.sentence])
        made = self.sharpener(blurred, sentence)
        again, new = made.chunk(2)
        losses: Losses = {"pixels": (again - x).abs().mean()}
        loss = sharp.pixels * losses["pixels"]
        if sharp.adversarial:
            real, fake = self.discriminator(x), self.discriminator(new.detach())
            losses["discriminator"] = matching_aware_discriminator_loss(
                self.discriminator.judged(real, text.sentence),
                self.discriminator.judged(fake, text.sentence),
                self.discriminator.judged(real, engine.shifted(text.sentence)),
            )
            engine.update("discriminator", losses["discriminator"])
            scored = self.discriminator.judged(self.discriminator(new), text.sentence)
            losses["generator"] = cross_entropy(scored, real=True)
            loss = loss + sharp.adversarial * losses["generator"]
        engine.update("sharpener", loss)
        return losses

    def blurred(self, batch: Batch, text: TextFeatures, x: Tensor) -> Tensor:
        """Draw images without sharpening them.

        Args:
            batch: A batch of B images.
            text: Features of its captions.
            x: The images in [0, 1].

        Returns:
            Reconstructions, then images from the prior, in [0, 1], float (2 B, 3, H, H).
        """
        drawing, shape = self.generator.drawing, self.generator.noise_shape
        text = self.generator.condition(text)
        again, _ = drawing.infer(
            x, text, lambda step: batch.noise.normal("posterior", step, shape[1:])
        )
        eps = batch.noise.normal("z", 0, shape)
        new = drawing.imagine(eps, text, self.config.temperature)
        return torch.cat([again, new]).sigmoid()


def stages(config: AlignDRAWConfig, text_encoder: TextEncoder) -> list[Stage]:
    """Return the stages: `drawing`, and `sharpening` where it has a share.

    Args:
        config: The model's settings.
        text_encoder: Not used here. Stage `drawing` trains it if it is trainable.

    Returns:
        The stages in order.
    """
    share = config.sharpen.share
    made = [Stage("drawing", 1 - share, partial(DrawingTrainer, config))]
    if share:
        made.append(Stage("sharpening", share, partial(SharpeningTrainer, config)))
    return made
