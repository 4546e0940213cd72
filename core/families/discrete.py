"""Discrete diffusion generators: all tokens of an image at once, noised by masks and replacements. VQ-Diffusion,
MaskGIT."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

from t2i.core.families.token_schedule import TokenSchedule
from t2i.core.interfaces.generator import Generator, Tolerance
from t2i.core.interfaces.text import TextFeatures


class DiscreteDiffusionGenerator(Generator):
    """`generator(x_t, t, text) -> logits` of the clean tokens x_0.

    Attributes:
        length: tokens of one image.
        schedule: how tokens are masked and replaced with t; also says what `t` is (an index, or a real number). Time 0
            is clean: the network is never called there.
    """

    family = "discrete-diffusion"
    tolerance: Tolerance = "statistical"
    length: int
    schedule: TokenSchedule

    @property
    def vocabulary(self) -> int:
        """K, how many different clean tokens there are. K itself is the mask's index."""
        return self.schedule.vocabulary

    @abstractmethod
    def forward(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Logits (B, length, K) of x_0 at tokens x_t (B, length), 0..K, and times t (B,), given conditioned text."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] of clean tokens (B, length), 0..K-1."""

    def encode(self, images: Tensor) -> Tensor:
        """Clean tokens (B, length) int64 of images (B, 3, H, W) in [-1, 1]. Optional: sampling does without."""
        raise NotImplementedError(f"{type(self).__name__} turns no images into tokens")

    if TYPE_CHECKING:

        def __call__(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor: ...
