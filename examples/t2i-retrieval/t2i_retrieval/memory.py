"""The generator: a map from sentences to keys, and a memory of images by their captions' keys."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i_retrieval.config import RetrievalConfig

SPREAD = 4.0
"""Length of keys at the start of training.

Distances are then a few units, so that the kernel distinguishes captions from the first step on.
"""


class RetrievalGenerator(Generator):
    """The family `retrieval`, which this plugin defines.

    A generator of this family returns the distances of captions to those of the remembered images.
    A sampler chooses an image by its distance.

    Attributes:
        images: The remembered images, uint8 (capacity, 3, H, H). Only the first `count` are valid.
    """

    family = "retrieval"
    images: Tensor

    @property
    @abstractmethod
    def count(self) -> int:
        """Number of remembered images, N."""

    @abstractmethod
    def forward(self, text: TextFeatures) -> Tensor:
        """Compute the distances of captions to those of the remembered images.

        Args:
            text: Features of B captions.

        Returns:
            Squared distances, float (B, N).
        """
        ...


class Memory(RetrievalGenerator):
    """A linear map from sentences to keys, and images stored under the keys of their captions.

    The memory consists of buffers, so it is saved with the weights.

    Args:
        config: The settings of the model.
        text: Widths of the text encoder's features.

    Attributes:
        images: The images, uint8 (capacity, 3, H, H).
        keys: The keys of their captions, float (capacity, key).
        seen: Number of images that were ever stored, int64 ().
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
        """Map sentences to keys: k = A e.

        It computes in double precision, so that a caption's key does not depend on the batch: equal
        captions must be at equal distances.

        Args:
            sentence: Features e of sentences, float (B, D).

        Returns:
            The keys, float (B, key).
        """
        return (sentence.double() @ self.metric.weight.double().T).float()

    @property
    def count(self) -> int:
        """Number of remembered images: all that were stored, at most the capacity."""
        return min(int(self.seen), len(self.keys))

    def forward(self, text: TextFeatures) -> Tensor:
        """Compute the distances of captions to those of the remembered images.

        Args:
            text: Features of B captions.

        Returns:
            Squared distances of the keys, float (B, N).
        """
        key, keys = self.key(text.sentence).double(), self.keys[: self.count].double()
        squares = key.square().sum(1, keepdim=True) + keys.square().sum(1) - 2 * key @ keys.T
        return squares.clamp_min(0).float()

    @torch.no_grad()
    def remember(self, images: Tensor, sentence: Tensor) -> None:
        """Store images under their captions. If the memory is full, they replace the oldest.

        Args:
            images: The images, float (B, 3, H, H) in [-1, 1].
            sentence: Features of their captions, float (B, D).
        """
        places = (int(self.seen) + torch.arange(len(images), device=self.keys.device)) % len(
            self.keys
        )
        self.images[places] = images.add(1).mul(127.5).round().to(torch.uint8)
        self.keys[places] = self.key(sentence)
        self.seen += len(images)


def build(config: RetrievalConfig, text: TextShape, assets: Path | None) -> Memory:
    """Build the generator.

    Args:
        config: The settings of the model.
        text: Widths of the text encoder's features.
        assets: Folder of the generator's saved files. None: there are none. It is not used.

    Returns:
        The generator, with an empty memory.
    """
    return Memory(config, text)
