"""The text encoder `hashed-words`: feature hashing of words and of pairs of neighbouring words.

Source: Weinberger et al. 2009, eq. 1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from t2i.core.interfaces.text import TextEncoder, TextFeatures, TextShape
from t2i_retrieval.config import HashedWordsConfig

_WORD = re.compile(r"\w+|[^\w\s]")
LONGEST = 64  # characters per word, on average, that are read: a caption may be a megabyte long


class HashedWords(TextEncoder):
    """Encodes captions by hashing; it has nothing to train.

    The features of a word are a signed unit vector. Those of a sentence are the sum of the vectors
    of all words and all pairs of neighbouring words, scaled to length 1. An empty caption has the
    sentence 0 and one word, 0.

    Args:
        config: The settings.
    """

    def __init__(self, config: HashedWordsConfig) -> None:
        super().__init__()
        self.config = config
        self.shape = TextShape(config.width, config.width)
        self.one: Tensor
        # The encoder has no parameters. This buffer gives its device.
        self.register_buffer("one", torch.ones(()))

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        split = [self._split(caption) for caption in captions]
        length = max(1, max(map(len, split), default=1))
        words = torch.zeros(len(captions), length, self.config.width)
        sentence = torch.zeros(len(captions), self.config.width)
        mask = torch.zeros(len(captions), length, dtype=torch.bool)
        mask[:, 0] = True  # an empty caption has one word, 0
        for row, tokens in enumerate(split):
            for place, token in enumerate(tokens):
                index, sign = _hashed(token, self.config.width)
                words[row, place, index] = sign
                mask[row, place] = True
            for token in [*tokens, *(f"{a} {b}" for a, b in pairwise(tokens))]:
                index, sign = _hashed(token, self.config.width)
                sentence[row, index] += sign
        sentence = sentence / sentence.norm(dim=1, keepdim=True).clamp_min(1e-6)
        device = self.one.device
        return TextFeatures(sentence.to(device), words.to(device), mask.to(device), tuple(captions))

    def _split(self, caption: str) -> list[str]:
        """Split a caption into words and punctuation marks, in lower case."""
        limit = self.config.max_words
        return _WORD.findall(caption[: LONGEST * limit].lower())[:limit]


@cache
def _hashed(token: str, width: int) -> tuple[int, float]:
    """Return the index and the sign of a token's vector, which are the same on every machine."""
    digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest, "little")
    return (number >> 1) % width, 1.0 if number & 1 else -1.0


def build(config: HashedWordsConfig, assets: Path | None) -> HashedWords:
    """Build the text encoder.

    Args:
        config: The settings.
        assets: Folder of the encoder's saved files. None: there are none. It is not used.

    Returns:
        The encoder.
    """
    return HashedWords(config)
