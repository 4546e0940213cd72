"""The text encoder `gpt2`: no network, only the tokens of GPT-2's byte-pair encoding.

Models such as GLIDE have vectors of their own for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Tokenizer

from t2i.core.interfaces.text import Reading, TextEncoder, TextFeatures, TextShape
from t2i.plugins.common.text.readable import readable
from t2i.plugins.common.text.tokens import padded, token_features
from t2i.plugins.common.weights.hub import Wanted
from t2i.plugins.common.weights.transformers_folders import obtained_tokenizer
from t2i.plugins.common.weights.trusted_files import check_folder
from t2i.plugins.encoders.gpt2.config import GPT2TokensConfig

FOLDER = "a folder with vocab.json and merges.txt, or with tokenizer.json"


class GPT2Tokens(TextEncoder):
    """Turns captions into numbers of tokens, for models that have vectors for them.

    `extras["tokens"]` holds the tokens, int64 (B, length), padded with the end of text; `mask`
    tells padding from the others. A caption begins and ends with no token of its own, so that "no
    caption" is padding alone. `words` (B, length, 1) are the same numbers, divided by that of all
    tokens, and `sentence` is their mean: no model can learn much from them.

    Args:
        config: Settings.
        tokenizer: GPT-2's tokenizer.
    """

    def __init__(self, config: GPT2TokensConfig, tokenizer: GPT2Tokenizer) -> None:
        super().__init__()
        self.config, self.tokenizer = config, tokenizer
        self.shape = TextShape(1, 1)
        self.total = len(self._tokenizer)
        self.register_buffer("anchor", torch.zeros(1), persistent=False)
        self.anchor: Tensor

    @property
    def _tokenizer(self) -> Any:
        """The tokenizer, whose types transformers does not declare."""
        return self.tokenizer

    def numbers(self, caption: str, tokens: int) -> list[int]:
        """Split a caption into tokens.

        Args:
            caption: The caption.
            tokens: About how many are needed. More may come.

        Returns:
            Their numbers.
        """
        text = readable(caption, tokens)
        text = text.lower() if self.config.lower else text
        read: Any = self._tokenizer(text, add_special_tokens=False, verbose=False)
        found: list[int] = read["input_ids"]
        return found

    def reading(self, caption: str) -> Reading:
        """Count the tokens of a caption. Every text has tokens."""
        length = self.config.length
        return Reading("tokens", len(self.numbers(caption, 2 * length)), (), length)

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        length, pad = self.config.length, self._tokenizer.eos_token_id
        rows = [self.numbers(caption, length) for caption in captions]
        tokens, counts = padded(rows, length, pad, self.anchor.device)
        return token_features(tokens, counts, self.total, captions)

    def save_assets(self, folder: Path) -> None:
        """Write the tokenizer. With it a saved model loads without the hub.

        Args:
            folder: The folder that it is written to.
        """
        self._tokenizer.save_pretrained(folder)


def load_tokenizer(config: GPT2TokensConfig) -> GPT2Tokenizer:
    """Load GPT-2's tokenizer.

    Args:
        config: Settings of the text encoder.

    Returns:
        The tokenizer.

    Raises:
        UserError: The files cannot be found.
    """
    wanted = Wanted(
        "text encoder 'gpt2'", "encoder.weights", config.weights, config.revision, FOLDER
    )
    return obtained_tokenizer(GPT2Tokenizer, wanted, "vocab.json and merges.txt")


def build(config: GPT2TokensConfig, assets: Path | None) -> GPT2Tokens:
    """Build the encoder.

    Args:
        config: Settings.
        assets: Folder that `save_assets` wrote for a saved model. None for a new encoder.

    Returns:
        The encoder.

    Raises:
        UserError: The tokenizer cannot be found.
    """
    if assets is None:
        return GPT2Tokens(config, load_tokenizer(config))
    check_folder(assets)
    return GPT2Tokens(config, GPT2Tokenizer.from_pretrained(assets))
