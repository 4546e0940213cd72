"""The text encoder `t5`: the frozen encoder of T5 (Raffel et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.text.frozen import FrozenEncoder
from t2i.plugins.common.weights.transformers_folders import check_saved
from t2i.plugins.encoders.t5.config import T5TextConfig
from t2i.plugins.encoders.t5.weights import (
    WHAT,
    check_config,
    check_fit,
    load_text_model,
    load_tokenizer,
)


class T5Encoder(FrozenEncoder):
    """T5's encoder, frozen.

    `words` (B, L, 768 for the base size) has one vector for each token, the end of text included.
    T5 has no vector of the whole caption; `sentence` (B, 768) is the mean over its own tokens.

    Args:
        config: Settings.
        network: The network of transformers. It is frozen and converted to float32.
        tokenizer: The tokenizer of the same T5.

    Raises:
        UserError: Network and tokenizer do not fit together.
    """

    def __init__(
        self, config: T5TextConfig, network: T5EncoderModel, tokenizer: T5Tokenizer
    ) -> None:
        super().__init__()
        check_fit(network, tokenizer)
        self.config, self.tokenizer, self.length = config, tokenizer, config.length
        width = network.config.d_model
        self.shape = TextShape(width, width)
        self.padding = "longest" if config.padding == "ignored" else "max_length"
        self.t5 = network
        self.float().requires_grad_(False).eval()

    @property
    def network(self) -> Any:
        return self.t5

    def encode_distinct(self, captions: Sequence[str]) -> TextFeatures:
        tokens, own = self.tokens(captions)
        seen = torch.ones_like(own) if self.config.padding == "attended" else own
        words: Tensor = self.t5(input_ids=tokens, attention_mask=seen.long()).last_hidden_state
        sentence = (words * own.unsqueeze(-1)).sum(1) / own.sum(1, keepdim=True)
        mask = own if self.config.padding == "ignored" else torch.ones_like(own)
        # Masked outputs are 0, so code that ignores the mask is safe.
        return TextFeatures(sentence, words * mask.unsqueeze(-1), mask, tuple(captions))

    def text_of(self, caption: str, tokens: int) -> str:
        text = super().text_of(caption, tokens)
        return text.lower() if self.config.lower else text


def build(config: T5TextConfig, assets: Path | None) -> T5Encoder:
    """Build the encoder, with T5's weights if it is new.

    Args:
        config: Settings.
        assets: Folder that `save_assets` wrote for a saved model, whose weights the caller loads
            afterwards. None for a new encoder.

    Returns:
        The encoder.

    Raises:
        UserError: The weights or the tokenizer cannot be found or are damaged; the message says
            what to do.
    """
    if assets is None:
        return T5Encoder(config, load_text_model(config), load_tokenizer(config))
    check_saved(assets, T5Config, WHAT, check_config)
    network = T5EncoderModel(T5Config.from_pretrained(assets))
    return T5Encoder(config, network, T5Tokenizer.from_pretrained(assets))
