"""Settings of the `words` encoder, its vocabulary among them, and how a caption is cut into words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config

SPECIAL = ("<pad>", "<start>", "<unknown>")
_WORD = re.compile(r"\w+|[^\w\s]")


class WordsConfig(Config):
    """Settings.

    width: of embeddings, word and sentence vectors. layers, heads: of the transformer. positions: standard deviation of
    the first vectors of the places in a caption, those of words having 0.5. neighbours: words (an odd number) that a
    convolution before the transformer looks at, to tell whose adjective is whose (0: none). max_words: longer captions
    are cut. vocabulary_size: words kept, the most frequent first. vocabulary: filled from the data set before training.
    """

    width: int = Field(128, ge=8)
    layers: int = Field(2, ge=1, le=MOST_LAYERS)
    heads: int = Field(4, ge=1)
    positions: float = Field(0.02, ge=0)
    neighbours: int = Field(0, ge=0)
    max_words: int = Field(48, ge=1)
    vocabulary_size: int = Field(10_000, ge=1)
    vocabulary: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> WordsConfig:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if self.neighbours and self.neighbours % 2 == 0:
            raise ValueError(
                f"neighbours ({self.neighbours}) must be odd: a word and as many on either side, or 0"
            )
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("vocabulary has a word twice")
        return self


def split(caption: str, limit: int) -> list[str]:
    """The first `limit` words of a caption, in lower case; punctuation marks are words.

    Only as much of the text is read as `limit` words of sensible length can need: a caption may be a megabyte long.
    """
    return _WORD.findall(caption[: 64 * limit].lower())[:limit]


def fit(config: WordsConfig, texts: Iterable[str]) -> WordsConfig:
    """The settings with the vocabulary of `texts`: most frequent first, ties in alphabetical order."""
    if config.vocabulary:
        return config
    counts = Counter(word for text in texts for word in split(text, config.max_words))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return config.model_copy(update={"vocabulary": tuple(ranked[: config.vocabulary_size])})
