"""Settings of the text encoder `t5`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.core.settings import Config

Padding = Literal["ignored", "encoded", "attended"]
"""What becomes of the padding of captions (see `T5TextConfig.padding`)."""


class T5TextConfig(Config):
    """Settings of the text encoder `t5`."""

    weights: str = Field("google/flan-t5-base", min_length=1)
    """T5's weights: a name on the Hugging Face hub, or a folder.

    The folder holds config.json, model.safetensors and the tokenizer's files. The encoder half of
    T5 suffices.
    """
    revision: str = "main"
    """Branch, tag or commit on the hub."""
    tokenizer: str | None = Field(None, min_length=1)
    """Folder or hub name of the tokenizer. None: it is beside the weights."""
    length: int = Field(256, ge=2, le=4096)
    """Longest caption in tokens, the end of text included. Longer captions are cut.

    PixArt-alpha reads 120, Stable Diffusion 3 reads 256, Imagen and DeepFloyd IF read 77.
    """
    padding: Padding = "ignored"
    """What becomes of the padding up to `length` tokens: "ignored", "encoded" or "attended".

    "ignored": there are word vectors for the caption's own tokens only (PixArt, Imagen). "encoded":
    there are `length` word vectors, but T5 attends to the caption's own tokens only (DeepFloyd IF).
    "attended": T5 attends to the padding, too (Stable Diffusion 3).
    """
    lower: bool = False
    """Whether captions are read in lower case (PixArt)."""
