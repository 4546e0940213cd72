"""Contrastive pretraining of a text encoder.

The sentence vector of each caption must find its image in the batch. This replaces DAMSM (Xu et al.
2018), with which the papers' encoders were trained, where there is no pretrained encoder. Captions
of similar images get similar vectors, and what does not show in images is ignored.
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
    """Compute the symmetric InfoNCE loss: cross entropy over the rows and over the columns.

    Source: Radford et al. 2021 (CLIP), figure 3.

    Args:
        logits: Similarity of each image to each sentence, float (B, B); the diagonal holds the
            matching pairs.

    Returns:
        The mean of the two cross entropies, a scalar.
    """
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


class Contrast(nn.Module):
    """Base of networks that map images to the space of sentence vectors.

    Its `forward` maps images (B, 3, H, H) to vectors (B, D). The temperature of the logits is
    trained.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def logits(self, images: Tensor, sentences: Tensor) -> Tensor:
        """Compute the scaled cosine of each image and each sentence.

        Args:
            images: Image vectors, float (B, D).
            sentences: Sentence vectors, float (C, D).

        Returns:
            The logits, float (B, C); a row for each image.
        """
        return self.log_scale.exp() * F.normalize(images, dim=1) @ F.normalize(sentences, dim=1).T


class Matcher(Contrast):
    """A small convolutional network that maps an image to the space of sentence vectors.

    It flattens the last 4x4 map instead of averaging it, because sentences say where things are.

    Args:
        image_size: Height and width of the images, in pixels.
        sentence: Width of a sentence vector, D.
        width: Channels of the first layer; deeper layers have up to 4 times as many.
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
        """Map images to vectors.

        Args:
            images: Images, float (B, 3, H, H).

        Returns:
            Vectors as wide as a sentence, float (B, D).
        """
        seen: Tensor = self.image(images)
        return seen


class MatchingTrainer(Trainer):
    """Trains the trainable parameters of a text encoder and of a matcher with the InfoNCE loss.

    Negatives come from the global batch, so that the loss does not depend on the number of
    processes.

    Args:
        text_encoder: The encoder to train. Frozen parameters stay frozen.
        matcher: The image network.
        lr: Learning rate of the matcher.
        lr_text: Learning rate of the encoder, which should be the smaller one. A batch rarely needs
            every word, and an encoder that moves fast forgets the words that do not help to tell a
            few dozen images apart.
    """

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
        """Show each image beside the image of the batch that its caption finds."""
        found = self.matcher.logits(self.matcher(batch.images), batch.text.sentence).argmax(0)
        return torch.stack([batch.images, batch.images[found]], dim=1).flatten(0, 1)


def text_stages(config: TextPretraining, text_encoder: TextEncoder) -> list[Stage]:
    """Return the stage that pretrains a trainable text encoder.

    Later stages freeze the encoder by not training it, and share 1 - config.text_share of the
    budget.

    Args:
        config: Settings of the pretraining, including the image size.
        text_encoder: The model's text encoder.

    Returns:
        One stage, or an empty list if the encoder is frozen.
    """
    if not text_encoder.trainable:
        return []

    def trainer(networks: Networks) -> Trainer:
        encoder = networks.text_encoder
        matcher = Matcher(config.image_size, encoder.shape.sentence, config.matcher_width)
        return MatchingTrainer(encoder, matcher, lr=config.matcher_lr, lr_text=config.text_lr)

    return [Stage("text", config.text_share, trainer)]
