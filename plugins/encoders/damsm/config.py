"""Settings of the text encoder `damsm`, and how it splits a caption into words."""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from t2i.core.settings import Config

_WORD = re.compile(r"\w+")


class DamsmConfig(Config):
    """Settings of the text encoder `damsm`.

    The defaults are the paper's for CUB. For COCO, `max_words` is 15 when DAMSM itself is trained
    and 12 when the GAN is.
    """

    embedding: int = Field(300, ge=1)
    """Width of the word embeddings."""
    width: int = Field(256, ge=2, multiple_of=2)
    """Width of the word and sentence vectors.

    It is even: each direction of the LSTM gives half of it.
    """
    dropout: float = Field(0.5, ge=0, lt=1)
    """Dropout probability of the word embeddings while the encoder is trained."""
    max_words: int = Field(18, ge=1)
    """Largest number of words of a caption; longer captions are cut."""
    vocabulary_size: int = Field(50_000, ge=1)
    """Largest number of words in the vocabulary; the most frequent words are kept."""
    vocabulary: tuple[str, ...] = ()
    """Words that the encoder knows.

    If empty, it is filled before training: from `captions`, or else from the data set.
    """
    captions: str | None = Field(None, min_length=1)
    """Path of the authors' captions.pickle, whose vocabulary is used. None: the data set's."""
    weights: str | None = Field(None, min_length=1)
    """Path of the authors' text_encoder*.pth.

    These weights are frozen, and they need their `captions`. None: new weights.
    """
    frozen: bool = False
    """Whether the encoder is never trained. With `weights` it is frozen in any case."""

    @model_validator(mode="after")
    def _check(self) -> DamsmConfig:
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("vocabulary has a word twice")
        if self.weights and not (self.captions or self.vocabulary):
            raise ValueError(
                "weights need the vocabulary that they were trained with: set captions to the "
                "authors' captions.pickle"
            )
        return self


def split_all(caption: str) -> list[str]:
    """Split a whole caption into words, and keep characters that are not ASCII.

    Args:
        caption: The caption.

    Returns:
        All its words, in lower case.
    """
    return _WORD.findall(caption.lower())


def split(caption: str, limit: int) -> list[str]:
    """Split a caption into words as the authors do.

    Words are runs of letters and digits, in lower case. Characters that are not ASCII are dropped.

    Args:
        caption: The caption.
        limit: Number of words that the caller needs. Only the first 64 * limit characters are
            read, which is enough for words of sensible length: a caption may be a megabyte long.

    Returns:
        The words; there may be more than `limit` of them.
    """
    words = (
        word.encode("ascii", "ignore").decode()
        for word in _WORD.findall(caption[: 64 * limit].lower())
    )
    return [word for word in words if word]
