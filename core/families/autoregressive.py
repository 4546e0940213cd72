"""Autoregressive generators: an image as a sequence of tokens, each drawn given those before it. DALL-E, Parti."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from torch import Tensor

from t2i.core.interfaces.generator import Generator, Tolerance
from t2i.core.interfaces.text import TextFeatures

State = Any
"""What a generator keeps between tokens: the keys and values of all positions so far. Only it knows what is in it."""


class AutoregressiveGenerator(Generator):
    """`begin(text)`, then `next(tokens, state)` once a token, then `decode(tokens)`.

    `begin` computes the whole prefix (the text, a start token), `next` one position: keys and values of those before
    are in the state. A trainer calls `forward`, which computes all positions of known tokens at once. Both give the
    same logits, to rounding. Rows are independent: a sampler that guides runs both branches as one batch.

    What text alone determines (an encoder's states, as Parti has them) is computed in `condition`, not in `begin`.

    Attributes:
        length: tokens of one image.
        vocabulary: how many different tokens there are: 0..vocabulary-1.
    """

    family = "autoregressive"
    tolerance: Tolerance = "statistical"
    length: int
    vocabulary: int

    @abstractmethod
    def begin(self, text: TextFeatures) -> tuple[Tensor, State]:
        """Takes in the conditioned text.

        Returns:
            Logits (B, vocabulary) of the first token, and the state. A logit of -inf forbids a token.
        """

    @abstractmethod
    def next(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Takes in the tokens just drawn, (B,) int64.

        Called length - 1 times: the last token of an image is drawn, but not taken in.

        Returns:
            Logits (B, vocabulary) of the token after it, and the state. The old state is not used again: it may be
            changed in place.
        """

    @abstractmethod
    def forward(self, tokens: Tensor, text: TextFeatures) -> Tensor:
        """Logits (B, length, vocabulary) of each token given those before it, for known tokens (B, length)."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] of tokens (B, length)."""

    def encode(self, images: Tensor) -> Tensor:
        """Tokens (B, length) int64 of images (B, 3, H, W) in [-1, 1]. Optional: sampling does without."""
        raise NotImplementedError(f"{type(self).__name__} turns no images into tokens")

    if TYPE_CHECKING:

        def __call__(self, tokens: Tensor, text: TextFeatures) -> Tensor: ...
