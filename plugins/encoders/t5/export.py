"""Export of T5's encoder to a pipeline in diffusers' layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from t2i.core.interfaces.text import TextEncoder
from t2i.plugins.encoders.t5.encoder import T5Encoder


def export(encoder: TextEncoder, folder: Path, sentence: bool) -> dict[str, tuple[str, str]]:
    """Write the folders text_encoder and tokenizer of a pipeline.

    The length of captions, the padding and the case are the pipeline's, not the encoder's.

    Args:
        encoder: A `T5Encoder`.
        folder: The folder of the pipeline.
        sentence: Not used: T5 has no weights for sentence vectors only.

    Returns:
        (library, class) of each part, by the part's name.
    """
    assert isinstance(encoder, T5Encoder)
    tokenizer: Any = encoder.tokenizer
    encoder.t5.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    return {
        "text_encoder": ("transformers", "T5EncoderModel"),
        "tokenizer": ("transformers", "T5Tokenizer"),
    }
