"""Discrete diffusion generators: all tokens of an image at once, noised by masks and replacements. VQ-Diffusion,
MaskGIT."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from t2i.core.families.token_schedule import TokenSchedule
from t2i.core.interfaces.generator import Generator, Tolerance
from t2i.core.interfaces.text import TextFeatures


class DiscreteDiffusionGenerator(Generator):
    """`generator(tokens_t, t, text) -> logits` of the clean tokens x_0.

    Attributes:
        length: tokens of one image.
        vocabulary: K, how many different clean tokens there are. K itself is the mask's index.
        schedule: how tokens are masked and replaced with t.
    """

    family = "discrete-diffusion"
    tolerance: ClassVar[Tolerance] = "statistical"
    length: int
    vocabulary: int
    schedule: TokenSchedule

    @abstractmethod
    def forward(self, tokens_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Logits (B, length, K) of x_0 at tokens_t (B, length), 0..K, and times t (B,), given conditioned text."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Images (B, 3, H, W) of clean tokens (B, length), 0..K-1."""

    if TYPE_CHECKING:

        def __call__(self, tokens_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor: ...
