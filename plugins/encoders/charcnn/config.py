"""Settings of the `char-cnn-rnn` encoder, and what it sees of a caption."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.core.settings import Config

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
"""The 70 characters of the authors' code. The hyphen is there twice; its second place is the one that is used."""
LENGTH = 201  # characters that are read


class CharCnnRnnConfig(Config):
    """Settings. The defaults are those of the encoders for CUB and COCO (Reed et al. 2016a); the one for flowers has
    recurrence=rnn, and those of the earlier paper (2016b) recurrence=rnn and width=256.

    weights: a file with the encoder's state dict. It is then frozen, unless `train`.
    train: whether the models that use it train it, from the file's weights or from scratch. With neither there are no
    weights, and no caption can be encoded: a model then draws from precomputed vectors.
    recurrence: "gru", over 18 places; "rnn", over 8, after one more pooling. width: of it.
    """

    weights: str | None = Field(None, min_length=1)
    train: bool = False
    recurrence: Literal["gru", "rnn"] = "gru"
    width: int = Field(512, ge=1)
