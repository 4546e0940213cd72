"""Settings of the text encoder `gpt2`. This module does not import torch."""

from __future__ import annotations

from pydantic import Field

from t2i.core.settings import Config


class GPT2TokensConfig(Config):
    """Settings of the text encoder `gpt2`."""

    weights: str = Field("openai-community/gpt2", min_length=1)
    """The tokenizer: a name on the Hugging Face hub, or a folder with vocab.json and merges.txt, or
    with tokenizer.json."""

    revision: str = "main"
    """Branch, tag or commit on the hub."""

    length: int = Field(128, ge=2, le=4096)
    """Number of tokens of a caption. Shorter ones are padded, longer ones are cut. GLIDE reads 128.
    """

    lower: bool = True
    """Whether captions are read in lower case (GLIDE)."""
