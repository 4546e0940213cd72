"""Settings of the text encoder `char-cnn-rnn`, its alphabet, and how much of a caption it reads."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.core.settings import Config

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
"""The 70 characters of the authors' code. The hyphen is listed twice; its second index is used."""
LENGTH = 201
"""Number of characters of a caption that are read."""


class CharCnnRnnConfig(Config):
    """Settings of the text encoder `char-cnn-rnn`.

    The defaults are those of the encoders for CUB and COCO of Reed et al. 2016,
    "Generative Adversarial Text to Image Synthesis" (ICML). Its encoder for flowers has
    recurrence=rnn. The encoders of Reed et al. 2016, "Learning Deep Representations of
    Fine-grained Visual Descriptions" (CVPR) have recurrence=rnn and width=256.
    """

    weights: str | None = Field(None, min_length=1)
    """Path of a file with the encoder's state dict.

    These weights are frozen, unless `train` is set. None: no file.
    """
    train: bool = False
    """Whether the models that use the encoder train it, from `weights` or from scratch.

    With neither `weights` nor `train` there are no weights, and no caption can be encoded: a model
    can then be sampled from precomputed vectors only.
    """
    recurrence: Literal["gru", "rnn"] = "gru"
    """Kind of the recurrent network.

    "gru" runs over 18 positions; "rnn" over 8, because one more pooling precedes it.
    """
    width: int = Field(512, ge=1)
    """Width of the recurrent network."""
