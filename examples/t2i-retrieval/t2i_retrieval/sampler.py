"""The sampler `nearest`, of the family `retrieval`."""

from __future__ import annotations

import torch
from torch import Tensor

from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i_retrieval.config import NearestConfig
from t2i_retrieval.memory import RetrievalGenerator


class NearestSampler(Sampler):
    """Chooses one of the `nearest` images with probabilities softmax(-d^2 / temperature).

    Args:
        config: The settings.
    """

    def __init__(self, config: NearestConfig) -> None:
        super().__init__(config)

    def sample(self, generator: Generator, request: Request) -> Tensor:
        assert isinstance(generator, RetrievalGenerator)
        if not generator.count:  # the memory is empty: grey images
            size = generator.image_size
            return torch.zeros(len(request), 3, size, size, device=generator.device)
        # Images of equal captions are at equal distances: a stable sort makes their order
        # independent of the batch.
        distances, order = generator(request.text).sort(dim=1, stable=True)
        k = min(self.config.nearest, generator.count)
        chosen = self._chosen(distances[:, :k], request.noise)
        places = order[:, :k].gather(1, chosen[:, None])[:, 0]
        request.step_done(1, 1)
        return generator.images[places].float().div(127.5).sub(1)

    def _chosen(self, distances: Tensor, noise: PromptNoise) -> Tensor:
        """Choose one of k images for each row (B, k); at temperature 0 the nearest."""
        if not self.config.temperature:
            return torch.zeros(len(distances), dtype=torch.long, device=distances.device)
        return noise.categorical("pick", 0, -distances / self.config.temperature)
