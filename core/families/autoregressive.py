"""Autoregressive generators: an image as a sequence of tokens, each drawn given those before it. DALL-E, Parti."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from t2i.core.interfaces.generator import Generator, Tolerance
from t2i.core.interfaces.text import TextFeatures

State = Any
"""What a generator keeps between tokens: the keys and values of all positions so far. Only it knows what is in it."""


class AutoregressiveGenerator(Generator):
    """`begin(text)`, then `next(tokens, state)` once a token, then `decode(tokens)`.

    `next` computes one position: keys and values of those before are in the state. A trainer calls `forward`, which
    computes all positions of known tokens at once; both give the same logits.

    Attributes:
        length: tokens of one image.
        vocabulary: how many different tokens there are.
    """

    family = "autoregressive"
    tolerance: ClassVar[Tolerance] = "statistical"
    length: int
    vocabulary: int

    @abstractmethod
    def begin(self, text: TextFeatures) -> tuple[Tensor, State]:
        """Takes in the conditioned text.

        Returns:
            Logits (B, vocabulary) of the first token, and the state.
        """

    @abstractmethod
    def next(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Takes in the token just drawn, (B,) int64.

        Returns:
            Logits (B, vocabulary) of the token after it, and the state. The old state is not used again.
        """

    @abstractmethod
    def forward(self, tokens: Tensor, text: TextFeatures) -> Tensor:
        """Logits (B, length, vocabulary) of each token given those before it, for known tokens (B, length)."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Images (B, 3, H, W) of tokens (B, length)."""
