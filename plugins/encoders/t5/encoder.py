"""The text encoder `t5`: the frozen encoder of T5 (Raffel et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from t2i.core.interfaces.text import Reading, TextEncoder, TextFeatures, TextShape, unique
from t2i.plugins.common.text.readable import readable
from t2i.plugins.common.weights.hub import refuse_foreign_code
from t2i.plugins.common.weights.network_types import shapes_saved
from t2i.plugins.common.weights.trusted_files import check_folder
from t2i.plugins.encoders.t5.config import T5TextConfig
from t2i.plugins.encoders.t5.weights import (
    WHAT,
    check_config,
    check_fit,
    load_text_model,
    load_tokenizer,
)


class T5Encoder(TextEncoder):
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
        self.config, self.tokenizer = config, tokenizer
        width = network.config.d_model
        self.shape = TextShape(width, width)
        self.t5 = network
        self.float().requires_grad_(False).eval()

    def tokens(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Convert captions to tokens.

        Args:
            captions: B captions.

        Returns:
            The tokens, int64 (B, L), and a mask, bool (B, L), that is False at padding; both are on
            the encoder's device.
        """
        batch: Any = self._tokenizer(
            [self._text(caption, self.config.length) for caption in captions],
            padding="longest" if self.config.padding == "ignored" else "max_length",
            truncation=True, max_length=self.config.length, return_tensors="pt",
        )  # fmt: skip
        device = self.t5.device
        return batch["input_ids"].to(device), batch["attention_mask"].bool().to(device)

    def reading(self, caption: str) -> Reading:
        """Count the tokens of a caption, the end of text included. Every text has tokens."""
        text = self._text(caption, 2 * self.config.length)  # more than is encoded: the cut shows
        read: Any = self._tokenizer(text, verbose=False)
        return Reading("tokens", len(read["input_ids"]), (), self.config.length)

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        """Encode captions, each distinct caption once.

        Args:
            captions: B captions.

        Returns:
            Their features.
        """
        distinct = unique(captions)
        row = {caption: i for i, caption in enumerate(distinct)}
        return self._encode(distinct)[[row[caption] for caption in captions]]

    def _encode(self, captions: Sequence[str]) -> TextFeatures:
        tokens, own = self.tokens(captions)
        seen = torch.ones_like(own) if self.config.padding == "attended" else own
        words: Tensor = self.t5(input_ids=tokens, attention_mask=seen.long()).last_hidden_state
        sentence = (words * own.unsqueeze(-1)).sum(1) / own.sum(1, keepdim=True)
        mask = own if self.config.padding == "ignored" else torch.ones_like(own)
        # Masked outputs are 0, so code that ignores the mask is safe.
        return TextFeatures(sentence, words * mask.unsqueeze(-1), mask, tuple(captions))

    @property
    def _tokenizer(self) -> Any:
        """The tokenizer, whose types transformers does not declare."""
        return self.tokenizer

    def _text(self, caption: str, tokens: int) -> str:
        """Return what is read of a caption that may have so many tokens."""
        text = readable(caption, tokens)
        return text.lower() if self.config.lower else text

    def save_assets(self, folder: Path) -> None:
        """Write the network's configuration and the tokenizer.

        With them a saved model loads without the hub.

        Args:
            folder: The folder that they are written to.
        """
        self.t5.config.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)


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
    check_folder(assets)
    refuse_foreign_code(T5Config, assets, WHAT)
    if (shapes := shapes_saved(assets)) is not None:
        check_config(assets, shapes)
    network = T5EncoderModel(T5Config.from_pretrained(assets))
    return T5Encoder(config, network, T5Tokenizer.from_pretrained(assets))
