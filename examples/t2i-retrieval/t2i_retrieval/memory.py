"""The generator: a map into the space where captions are compared, and a memory of images."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i_retrieval.config import RetrievalConfig

SPREAD = 4.0
"""Length of a new key: distances of a few units, so that the kernel tells captions apart from the first step on."""


class RetrievalGenerator(Generator):
    """The family `retrieval`, which this plugin brings: `generator(text) -> (B, N)`, squared distances of the captions
    to those of the N remembered images, uint8 `images` (capacity, 3, H, H). A sampler picks one by its distance."""

    family = "retrieval"
    images: Tensor

    @property
    @abstractmethod
    def count(self) -> int:
        """Images remembered, N."""

    @abstractmethod
    def forward(self, text: TextFeatures) -> Tensor: ...


class Memory(RetrievalGenerator):
    """A map of sentences into the space where captions are compared, and images stored under their captions.

    The memory is made of buffers: it is saved with the weights. images: uint8 (capacity, 3, H, H). keys: (capacity,
    key). seen: images ever stored.
    """

    def __init__(self, config: RetrievalConfig, text: TextShape) -> None:
        super().__init__()
        self.image_size = config.image_size
        self.metric = nn.Linear(text.sentence, config.key, bias=False)
        nn.init.orthogonal_(self.metric.weight, gain=SPREAD)
        self.keys: Tensor
        self.seen: Tensor
        size = (config.capacity, 3, config.image_size, config.image_size)
        self.register_buffer("images", torch.zeros(size, dtype=torch.uint8))
        self.register_buffer("keys", torch.zeros(config.capacity, config.key))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def key(self, sentence: Tensor) -> Tensor:
        """A e (B, key). In double precision, so that a caption's key does not depend on its batch: captions that are
        equal must be equally far."""
        return (sentence.double() @ self.metric.weight.double().T).float()

    @property
    def count(self) -> int:
        """Images remembered."""
        return min(int(self.seen), len(self.keys))

    def forward(self, text: TextFeatures) -> Tensor:
        key, keys = self.key(text.sentence).double(), self.keys[: self.count].double()
        squares = key.square().sum(1, keepdim=True) + keys.square().sum(1) - 2 * key @ keys.T
        return squares.clamp_min(0).float()

    @torch.no_grad()
    def remember(self, images: Tensor, sentence: Tensor) -> None:
        """Stores images (B, 3, H, H) in [-1, 1] under their captions, over the oldest if the memory is full."""
        places = (int(self.seen) + torch.arange(len(images), device=self.keys.device)) % len(
            self.keys
        )
        self.images[places] = images.add(1).mul(127.5).round().to(torch.uint8)
        self.keys[places] = self.key(sentence)
        self.seen += len(images)


def build(config: RetrievalConfig, text: TextShape, assets: Path | None) -> Memory:
    return Memory(config, text)
