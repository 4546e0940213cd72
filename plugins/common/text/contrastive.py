"""Contrastive pretraining of a text encoder: a caption's sentence vector is to find its image in the batch.

It stands in for DAMSM (Xu et al. 2018), by which the papers' encoders were trained, where there is no pretrained
encoder: captions that look alike get alike vectors, and what does not show in images is forgotten.
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
    """The symmetric InfoNCE loss (CLIP, Radford et al. 2021, figure 3): cross entropy both ways of logits (B, B), whose
    diagonal holds the matching pairs."""
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


class Contrast(nn.Module):
    """Images and sentences in one space: its `forward` takes images (B, 3, H, H) there, (B, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))

    def logits(self, images: Tensor, sentences: Tensor) -> Tensor:
        """Scaled cosines (B, C): row i is image i of (B, D) against each of the sentences (C, D)."""
        return self.log_scale.exp() * F.normalize(images, dim=1) @ F.normalize(sentences, dim=1).T


class Matcher(Contrast):
    """Tells which image goes with which sentence, by the cosine of the sentence with a small convolutional network's
    view of the image.

    The network keeps the last 4x4 map instead of averaging it: sentences are to say where things are.
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
        """(B, D), as wide as a sentence, of images (B, 3, H, H)."""
        seen: Tensor = self.image(images)
        return seen


class MatchingTrainer(Trainer):
    """Trains what is trainable of a text encoder and of a matcher. Negatives are those of the global batch: however
    many processes share it, the loss is one process's.

    lr, lr_text: of the matcher and of the encoder. The encoder's should be the smaller: a batch seldom asks for every
    word, and an encoder that moves fast drops those that do not help to tell a few dozen images apart.
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
        """Each image beside the one of the batch that its caption finds."""
        found = self.matcher.logits(self.matcher(batch.images), batch.text.sentence).argmax(0)
        return torch.stack([batch.images, batch.images[found]], dim=1).flatten(0, 1)


def text_stages(config: TextPretraining, text_encoder: TextEncoder) -> list[Stage]:
    """The stage in which a trainable encoder is pretrained; none where it is frozen. Later stages freeze the encoder by
    leaving it out, and share 1 - config.text_share of the budget."""
    if not text_encoder.trainable:
        return []

    def trainer(networks: Networks) -> Trainer:
        encoder = networks.text_encoder
        matcher = Matcher(config.image_size, encoder.shape.sentence, config.matcher_width)
        return MatchingTrainer(encoder, matcher, lr=config.matcher_lr, lr_text=config.text_lr)

    return [Stage("text", config.text_share, trainer)]
