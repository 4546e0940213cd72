"""Settings of the text encoder `bpe`."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from t2i.core.settings import Config

PAD, UNKNOWN = "[PAD]", "[UNK]"


class BPEConfig(Config):
    """Settings of the text encoder `bpe`."""

    length: int = Field(64, ge=2, le=4096)
    """Number of tokens of a caption. Shorter ones are padded, longer ones are cut."""

    vocabulary_size: int = Field(16384, ge=4, le=1 << 20)
    """Largest number of tokens in a vocabulary that is made of the data set's captions."""

    lower: bool = True
    """Whether captions are read in lower case."""

    vocabulary: tuple[str, ...] = ()
    """The tokens, in the order of their numbers. If empty, it is filled before training, from the
    data set, together with `merges`."""

    merges: tuple[str, ...] = ()
    """Pairs of tokens that are joined, "A B", the first ones first."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.vocabulary and not {PAD, UNKNOWN} <= set(self.vocabulary):
            raise ValueError(f"vocabulary: it lacks {PAD} or {UNKNOWN}")
        if len(set(self.vocabulary)) != len(self.vocabulary):
            raise ValueError("vocabulary has a token twice")
        if any(len(pair.split(" ")) != 2 for pair in self.merges):
            raise ValueError("merges: each is two tokens with a space between them")
        return self
