"""Settings of the `damsm` encoder, its vocabulary among them, and how a caption is cut into words."""

from __future__ import annotations

import re

from pydantic import Field, model_validator

from t2i.core.settings import Config

_WORD = re.compile(r"\w+")


class DamsmConfig(Config):
    """Settings; the defaults are the paper's, for CUB (COCO: max_words 15 in DAMSM's own training, 12 in the GAN's).

    embedding: width of word embeddings. width: of word and sentence vectors, half of it each direction's.
    dropout: of the embeddings, while the encoder is trained. max_words: longer captions are cut.
    vocabulary_size: words kept, the most frequent first. vocabulary: filled from the data set before training, or from
    `captions`. captions: the authors' captions.pickle. weights: the authors' text_encoder*.pth, which are then frozen
    and need their `captions`. frozen: never to be trained.
    """

    embedding: int = Field(300, ge=1)
    width: int = Field(256, ge=2, multiple_of=2)
    dropout: float = Field(0.5, ge=0, lt=1)
    max_words: int = Field(18, ge=1)
    vocabulary_size: int = Field(50_000, ge=1)
    vocabulary: tuple[str, ...] = ()
    captions: str | None = Field(None, min_length=1)
    weights: str | None = Field(None, min_length=1)
    frozen: bool = False

    @model_validator(mode="after")
    def _check(self) -> DamsmConfig:
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("vocabulary has a word twice")
        if self.weights and not (self.captions or self.vocabulary):
            raise ValueError(
                "weights mean nothing without their words: give captions, the authors' captions.pickle"
            )
        return self


def split(caption: str, limit: int) -> list[str]:
    """The words of a caption as the authors cut it: runs of letters and digits, lower case, what is not ASCII left
    out. Only as much is read as `limit` words of sensible length can need: a caption may be a megabyte long."""
    words = (
        word.encode("ascii", "ignore").decode()
        for word in _WORD.findall(caption[: 64 * limit].lower())
    )
    return [word for word in words if word]
