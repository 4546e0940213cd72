"""The sampler of one-shot generators: one call."""

from __future__ import annotations

from torch import Tensor

from t2i.core.generator import Generator
from t2i.core.noise import PromptNoise
from t2i.core.sampler import Guide, Progress, Sampler
from t2i.core.text import TextFeatures


class DirectSampler(Sampler):
    families = ("one-shot",)

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
        images: Tensor = generator(noise.normal("z", 0, generator.noise_shape), text)
        return images
