"""The family of optimised generators, such as CLIP-guided VQGAN.

An image is found by maximising a score of how well it fits the text.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from t2i.core.interfaces.generator import Generator, Tolerance
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures


class OptimisedGenerator(Generator):
    """A generator whose images are found by optimisation.

    A sampler begins with `start`, maximises `score` over the latents, and calls `decode`. A model
    of this family may have nothing to train; its `stages` are then empty.
    """

    family = "optimised"
    tolerance: Tolerance = "statistical"

    @abstractmethod
    def start(self, noise: Noise) -> Tensor:
        """Make the latents that the optimisation begins with.

        Args:
            noise: Source of random numbers for B images.

        Returns:
            Latents, float (B, ...).
        """

    @abstractmethod
    def score(self, latents: Tensor, text: TextFeatures, noise: Noise, step: int) -> Tensor:
        """Score how well each image fits its text. It must be differentiable in the latents.

        The score of a row must depend on the latents, text and noise of this row only.

        Args:
            latents: Latents, (B, ...).
            text: Features of B captions, as `condition` returned them.
            noise: Source of random numbers, for random crops and the like.
            step: Number of the optimisation step, from 0, under which `noise` is drawn.

        Returns:
            Scores (B,); larger is better.
        """

    def constrain(self, latents: Tensor) -> Tensor:
        """Move latents to the nearest valid ones. By default all are valid.

        Called after each step, without gradients. CLIP-guided VQGAN, for example, keeps each
        channel within the range of its codebook.

        Args:
            latents: Latents, (B, ...).

        Returns:
            Valid latents, (B, ...).
        """
        return latents

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents into images.

        Args:
            latents: Latents, (B, ...).

        Returns:
            Images, (B, 3, H, W) in [-1, 1].
        """
