"""Settings of the text encoder `bert`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from t2i.core.settings import Config


class BertTextConfig(Config):
    """Settings of the text encoder `bert`. The defaults are XMC-GAN's."""

    weights: str = Field("google-bert/bert-base-uncased", min_length=1)
    """BERT's weights: a name on the Hugging Face hub, or a folder.

    The folder holds config.json, model.safetensors and the tokenizer's files.
    """
    revision: str = "main"
    """Branch, tag or commit on the hub."""
    tokenizer: str | None = Field(None, min_length=1)
    """Folder or hub name of the tokenizer. None: it is beside the weights."""
    length: int = Field(17, ge=3, le=4096)
    """Length of every caption in tokens, [CLS] and [SEP] included. Longer captions are cut, shorter
    ones are padded."""
    sentence: Literal["sum", "mean"] = "sum"
    """How the word vectors make the sentence vector.

    "sum": the sum over all `length` positions, padding included, divided by the number of the
    caption's own tokens, as XMC-GAN's authors do. "mean": the mean over the caption's own tokens.
    """
