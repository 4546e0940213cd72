"""Contrastive pretraining of a text encoder: each sentence vector must find its image in the batch.

It replaces DAMSM (Xu et al. 2018), which trained the papers' encoders, where there is no pretrained
encoder. Captions of images that look alike get similar vectors; what images do not show is dropped.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.text.config import TextPretraining


def info_nce(logits: Tensor) -> Tensor:
    """Compute the symmetric InfoNCE loss.

    Source: CLIP, Radford et al. 2021, figure 3.

    Args:
        logits: Scores (B, B) of images (rows) and captions (columns). Matching pairs are on the
            diagonal.

    Returns:
        The mean of the two cross entropies, over rows and over columns. A scalar.
    """
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


class Contrast(nn.Module):
    """Base of networks that compare images with sentence vectors.

    A subclass's `forward` maps images (B, 3, H, H) to vectors (B, D) as wide as a sentence.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def logits(self, images: Tensor, sentences: Tensor) -> Tensor:
        """Compute the scaled cosines of images and sentences.

        Args:
            images: Vectors of B images, (B, D), as `forward` returns them.
            sentences: Sentence vectors of C captions, (C, D).

        Returns:
            Logits (B, C): the cosine of each image and sentence times a trained scale.
        """
        return self.log_scale.exp() * F.normalize(images, dim=1) @ F.normalize(sentences, dim=1).T


class Matcher(Contrast):
    """A small convolutional network that maps an image to the vector of its sentence.

    The network keeps its last 4x4 map instead of averaging it, so that sentence vectors must say
    where things are.

    Args:
        image_size: Height and width of the images in pixels.
        sentence: Width of the sentence vectors.
        width: Channels of the first layer, a multiple of 4. Later layers have up to four times as
            many.
    """

    def __init__(self, image_size: int, sentence: int, width: int) -> None:
        super().__init__()
        levels = int(math.log2(image_size / 4))
        channels = [width * min(2**i, 4) for i in range(levels + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.2)]
        for c_in, c_out in pairwise(channels):
            layers += [
                nn.Conv2d(c_in, c_out, 4, stride=2, padding=1),
                nn.GroupNorm(4, c_out),
                nn.LeakyReLU(0.2),
            ]
        self.image = nn.Sequential(
            *layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * channels[-1], sentence)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Compute the vectors of images.

        Args:
            images: Images (B, 3, H, H) in [-1, 1].

        Returns:
            Vectors (B, D), as wide as a sentence, not normalised.
        """
        seen: Tensor = self.image(images)
        return seen


class MatchingTrainer(Trainer):
    """Trainer of a text encoder and a matcher, of those parameters that require gradients.

    The negatives are those of the global batch, so the loss is that of a single process, however
    many share the batch.

    Args:
        text_encoder: The text encoder to train.
        matcher: The image network it is trained with.
        lr: Learning rate of the matcher.
        lr_text: Learning rate of the text encoder. It should be smaller than `lr`: a batch seldom
            needs every word, and an encoder that moves fast forgets words that do not help to tell
            a few dozen images apart.
    """

    previews = "Of each caption: its real image, then the real one that the text finds (no sample)."

    def __init__(
        self, text_encoder: TextEncoder, matcher: Contrast, lr: float, lr_text: float
    ) -> None:
        self.matcher = matcher
        self.modules = {"text_encoder": text_encoder, "matcher": matcher}
        groups = [
            {"params": [p for p in module.parameters() if p.requires_grad], "lr": rate}
            for module, rate in ((matcher, lr), (text_encoder, lr_text))
        ]
        self.optimizers = {"contrastive": torch.optim.Adam(groups, betas=(0.9, 0.98), fused=True)}

    def step(self, batch: Batch, engine: Engine) -> Losses:
        images, sentences = (
            engine.gathered(self.matcher(batch.images)),
            engine.gathered(batch.text.sentence),
        )
        logits = self.matcher.logits(images, sentences)
        loss = info_nce(logits)
        engine.update("contrastive", loss)
        found = logits.detach().argmax(0) == torch.arange(len(logits), device=logits.device)
        return {"contrastive": loss, "found": found.float().mean()}

    def preview(self, batch: Batch) -> Tensor:
        """Pair each image with the image of the batch that its caption scores highest.

        Args:
            batch: A batch of B images and captions.

        Returns:
            Images (2 B, 3, H, H): image 0, the one found for it, image 1, and so on.
        """
        found = self.matcher.logits(self.matcher(batch.images), batch.text.sentence).argmax(0)
        return torch.stack([batch.images, batch.images[found]], dim=1).flatten(0, 1)


def text_stages(config: TextPretraining, text_encoder: TextEncoder) -> list[Stage]:
    """Build the stage that pretrains a trainable text encoder.

    Later stages keep the encoder frozen because their trainers leave it out. Their shares must add
    up to 1 - config.text_share.

    Args:
        config: Settings of the pretraining.
        text_encoder: The model's text encoder. It decides only whether there is a stage.

    Returns:
        A list of one stage. It is empty if the encoder is frozen.
    """
    if not text_encoder.trainable:
        return []

    def trainer(networks: Networks) -> Trainer:
        encoder = networks.text_encoder
        matcher = Matcher(config.image_size, encoder.shape.sentence, config.matcher_width)
        return MatchingTrainer(encoder, matcher, lr=config.matcher_lr, lr_text=config.text_lr)

    return [Stage("text", config.text_share, trainer)]
