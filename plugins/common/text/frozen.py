"""What text encoders share that are a frozen network of transformers with its tokenizer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from t2i.core.interfaces.text import Reading, TextEncoder, TextFeatures, unique
from t2i.plugins.common.text.readable import readable


class FrozenEncoder(TextEncoder):
    """Base of text encoders that are a frozen network of transformers with its tokenizer.

    Attributes:
        tokenizer: The tokenizer of transformers. `__init__` sets it.
        length: Largest number of tokens of a caption, at least 1. `__init__` sets it.
        padding: Whether a batch is padded to `length` or to its longest caption.
    """

    tokenizer: Any
    length: int
    padding: Literal["max_length", "longest"] = "max_length"

    @property
    @abstractmethod
    def network(self) -> Any:
        """The network. A subclass stores it under the name that its saved weights have."""

    @abstractmethod
    def encode_distinct(self, captions: Sequence[str]) -> TextFeatures:
        """Encode captions of which no two are the same.

        Args:
            captions: B captions.

        Returns:
            Their features.
        """

    def text_of(self, caption: str, tokens: int) -> str:
        """Reduce a caption to the text that is read: by default, to readable characters.

        Args:
            caption: The caption.
            tokens: Largest number of tokens.

        Returns:
            The text.
        """
        return readable(caption, tokens)

    def tokens(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Convert captions to tokens.

        Args:
            captions: B captions.

        Returns:
            The tokens, int64 (B, L), and a mask, bool (B, L), that is False at padding; both are on
            the encoder's device.
        """
        batch = self.tokenizer(
            [self.text_of(caption, self.length) for caption in captions],
            padding=self.padding, truncation=True, max_length=self.length, return_tensors="pt",
        )  # fmt: skip
        device = self.network.device
        return batch["input_ids"].to(device), batch["attention_mask"].bool().to(device)

    def reading(self, caption: str) -> Reading:
        """Count the tokens of a caption, special ones included. Every text has tokens."""
        text = self.text_of(caption, 2 * self.length)  # more than is encoded: that it is cut shows
        return Reading(
            "tokens", len(self.tokenizer(text, verbose=False)["input_ids"]), (), self.length
        )

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        """Encode captions, each distinct caption once.

        A batch often holds several samples of one prompt, or several times no prompt.

        Args:
            captions: B captions.

        Returns:
            Their features.
        """
        distinct = unique(captions)
        row = {caption: i for i, caption in enumerate(distinct)}
        return self.encode_distinct(distinct)[[row[caption] for caption in captions]]

    def save_assets(self, folder: Path) -> None:
        """Write the network's configuration and the tokenizer.

        With them a saved model loads without the hub.

        Args:
            folder: The folder that they are written to.
        """
        self.network.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
