"""Optimised generators: an image is found by climbing a score of how well it fits the text. CLIP-guided VQGAN."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from t2i.core.interfaces.generator import Generator, Tolerance
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures


class OptimisedGenerator(Generator):
    """`start(noise) -> latents`, `score(latents, text, noise, step)` to climb, `decode(latents) -> images`.

    A model of this family may have nothing to train: its `stages` are then empty.
    """

    family = "optimised"
    tolerance: Tolerance = "statistical"

    @abstractmethod
    def start(self, noise: Noise) -> Tensor:
        """Latents (B, ...) to begin with, float."""

    @abstractmethod
    def score(self, latents: Tensor, text: TextFeatures, noise: Noise, step: int) -> Tensor:
        """How well each image fits its text, (B,), larger is better; differentiable in the latents.

        A row's score depends on its own latents, text and noise alone. Random crops and the like are drawn from
        `noise` under the number of the step.
        """

    def constrain(self, latents: Tensor) -> Tensor:
        """The nearest latents that are allowed, called after each step without gradients. Default: all are.

        CLIP-guided VQGAN keeps each channel within the range of its codebook.
        """
        return latents

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] of latents."""
