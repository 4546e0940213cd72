"""Settings of the text encoder `words`, and how it splits a caption into words."""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from t2i.core.settings import MOST_LAYERS, Config

SPECIAL = ("<pad>", "<start>", "<unknown>")
_WORD = re.compile(r"\w+|[^\w\s]")


class WordsConfig(Config):
    """Settings of the text encoder `words`."""

    width: int = Field(128, ge=8)
    """Width of the embeddings, the word vectors and the sentence vector. A multiple of `heads`."""
    layers: int = Field(2, ge=1, le=MOST_LAYERS)
    """Number of transformer layers."""
    heads: int = Field(4, ge=1)
    """Number of attention heads of each layer."""
    positions: float = Field(0.02, ge=0)
    """Standard deviation of the initial position embeddings. That of the word embeddings is 0.5."""
    neighbours: int = Field(0, ge=0)
    """Kernel size, in words, of a convolution before the transformer.

    It helps to tell which adjective belongs to which noun. It is odd: a word and as many on either
    side. 0: no convolution.
    """
    max_words: int = Field(48, ge=1)
    """Largest number of words of a caption; longer captions are cut."""
    vocabulary_size: int = Field(10_000, ge=1)
    """Largest number of words in the vocabulary; the most frequent words are kept."""
    vocabulary: tuple[str, ...] = ()
    """Words that the encoder knows. If empty, it is filled before training: from `weights`, or else
    from the data set."""
    weights: str | None = Field(None, min_length=1)
    """Pretrained weights: a folder with config.json and model.safetensors, or a name of weights
    that a data set ships, such as shapes-clip. They bring their own sizes and vocabulary. None: new
    weights."""
    frozen: bool = False
    """Whether the encoder is never trained. It makes sense with `weights` only."""

    @model_validator(mode="after")
    def _check(self) -> WordsConfig:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        if self.neighbours and self.neighbours % 2 == 0:
            raise ValueError(
                f"neighbours ({self.neighbours}) must be odd: a word and as many on either side, "
                "or 0"
            )
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("vocabulary has a word twice")
        if self.frozen and not self.weights:
            raise ValueError("frozen: an encoder with random weights must be trained; set weights")
        return self


def split(caption: str, limit: int) -> list[str]:
    """Split a caption into words, in lower case. Each punctuation mark is a word.

    Args:
        caption: The caption. Only its first 64 * limit characters are read, which is enough for
            words of sensible length: a caption may be a megabyte long.
        limit: Largest number of words.

    Returns:
        The first `limit` words.
    """
    return _WORD.findall(caption[: 64 * limit].lower())[:limit]


def split_all(caption: str) -> list[str]:
    """Split a whole caption into words, as `split` does.

    Args:
        caption: The caption.

    Returns:
        All its words.
    """
    return _WORD.findall(caption.lower())
