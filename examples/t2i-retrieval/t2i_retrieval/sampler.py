"""The sampler `nearest`, of the family `retrieval`."""

from __future__ import annotations

import torch
from torch import Tensor

from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.sampler import Guide, Progress, Sampler
from t2i.core.interfaces.text import TextFeatures
from t2i_retrieval.config import NearestConfig
from t2i_retrieval.memory import Memory


class NearestSampler(Sampler):
    """Draws one of the `nearest` pictures, with probabilities softmax(-d^2 / temperature)."""

    families = ("retrieval",)

    def __init__(self, config: NearestConfig) -> None:
        super().__init__(config)

    def sample(
        self,
        generator: Generator,
        text: TextFeatures,
        noise: PromptNoise,
        null: TextFeatures | None = None,
        *,
        guide: Guide | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        assert isinstance(generator, Memory)
        if not generator.count:  # nothing is remembered yet: grey
            size = generator.image_size
            return torch.zeros(len(text), 3, size, size, device=generator.device)
        # Equal captions are equally far: a stable sort puts them in the same order whatever the batch.
        distances, order = generator(text).sort(dim=1, stable=True)
        k = min(self.config.nearest, generator.count)
        chosen = self._chosen(distances[:, :k], noise)
        places = order[:, :k].gather(1, chosen[:, None])[:, 0]
        if progress:
            progress(1, 1)
        return generator.pictures[places].float().div(127.5).sub(1)

    def _chosen(self, distances: Tensor, noise: PromptNoise) -> Tensor:
        """One of k (B,), by inversion of the distribution function at one uniform number for each picture."""
        if not self.config.temperature:
            return torch.zeros(len(distances), dtype=torch.long, device=distances.device)
        probabilities = torch.softmax(-distances.double() / self.config.temperature, dim=1)
        u = noise.uniform("pick", 0, (1,)).double()
        return (probabilities.cumsum(1) < u).sum(1).clamp_max(distances.shape[1] - 1)
