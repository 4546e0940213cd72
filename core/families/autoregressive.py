"""The family of autoregressive generators, such as DALL-E and Parti.

An image is a sequence of tokens, and each token is drawn given those before it.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from torch import Tensor

from t2i.core.interfaces.generator import Generator, Tolerance
from t2i.core.interfaces.text import TextFeatures

State = Any
"""What a generator keeps between tokens, such as the keys and values of all positions so far.

Samplers pass it on without looking inside.
"""


class AutoregressiveGenerator(Generator):
    """A generator that predicts one token after the other.

    A sampler calls `begin(text)`, then `next(tokens, state)` for each token, then `decode(tokens)`.
    `begin` computes the whole prefix (the text, a start token). `next` computes one position; keys
    and values of earlier positions are in the state. A trainer calls `forward`, which computes all
    positions of known tokens at once. Both give the same logits, up to rounding. Rows must be
    independent, because guided samplers run both branches as one batch.

    What depends on the text alone (the states of Parti's encoder, for example) is computed in
    `condition`, not in `begin`.

    Attributes:
        length: Number of tokens of an image.
        vocabulary: Number of different tokens, which are 0 to vocabulary - 1.
    """

    family = "autoregressive"
    tolerance: Tolerance = "statistical"
    length: int
    vocabulary: int

    @abstractmethod
    def begin(self, text: TextFeatures) -> tuple[Tensor, State]:
        """Process the text and predict the first token.

        Args:
            text: Features of B captions, as `condition` returned them.

        Returns:
            Logits (B, vocabulary) of the first token, and the state. A logit of -inf forbids a
            token.
        """

    @abstractmethod
    def next(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Process the tokens that were just drawn and predict the next ones.

        Called length - 1 times, because nothing follows the last token.

        Args:
            tokens: One token for each image, int64 (B,).
            state: The state that the previous call returned. It is not used again and may be
                changed in place.

        Returns:
            Logits (B, vocabulary) of the next token, and the new state.
        """

    @abstractmethod
    def forward(self, tokens: Tensor, text: TextFeatures) -> Tensor:
        """Predict each of some known tokens, given those before it.

        Args:
            tokens: Tokens, int64 (B, length).
            text: Features of B captions, as `condition` returned them.

        Returns:
            Logits, (B, length, vocabulary).
        """

    @abstractmethod
    def decode(self, tokens: Tensor) -> Tensor:
        """Turn tokens into images.

        Args:
            tokens: Tokens, int64 (B, length).

        Returns:
            Images, (B, 3, H, W) in [-1, 1].
        """

    def encode(self, images: Tensor) -> Tensor:
        """Turn images into tokens. Optional: sampling does not need it.

        Args:
            images: Images, (B, 3, H, W) in [-1, 1].

        Returns:
            Tokens, int64 (B, length).

        Raises:
            NotImplementedError: The generator cannot encode images.
        """
        raise NotImplementedError(f"{type(self).__name__} turns no images into tokens")

    if TYPE_CHECKING:

        def __call__(self, tokens: Tensor, text: TextFeatures) -> Tensor: ...
