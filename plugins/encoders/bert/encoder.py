"""The text encoder `bert`: the frozen BERT of Devlin et al. 2019."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import BertConfig, BertModel, BertTokenizer

from t2i.core.interfaces.text import Reading, TextEncoder, TextFeatures, TextShape, unique
from t2i.plugins.common.text.readable import readable
from t2i.plugins.common.weights.hub import refuse_foreign_code
from t2i.plugins.common.weights.network_types import shapes_saved
from t2i.plugins.common.weights.trusted_files import check_folder
from t2i.plugins.encoders.bert.config import BertTextConfig
from t2i.plugins.encoders.bert.weights import (
    WHAT,
    check_config,
    check_fit,
    load_text_model,
    load_tokenizer,
)


class BertEncoder(TextEncoder):
    """BERT, frozen.

    `words` (B, length, 768 for the base size) are the last layer's outputs at all tokens, [CLS] and
    [SEP] included. `sentence` (B, 768) is made of them (see `BertTextConfig.sentence`).

    Args:
        config: Settings.
        network: The network of transformers. It is frozen and converted to float32, and loses its
            pooler.
        tokenizer: The tokenizer of the same BERT.

    Raises:
        UserError: Settings, network and tokenizer do not fit together.
    """

    def __init__(
        self, config: BertTextConfig, network: BertModel, tokenizer: BertTokenizer
    ) -> None:
        super().__init__()
        check_fit(config, network, tokenizer)
        self.config, self.tokenizer = config, tokenizer
        width = network.config.hidden_size
        self.shape = TextShape(width, width)
        bert: Any = network  # transformers' types do not describe the parts
        bert.pooler = None
        self.bert: Any = bert
        self.float().requires_grad_(False).eval()

    def tokens(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Convert captions to tokens.

        Args:
            captions: B captions.

        Returns:
            The tokens, int64 (B, length), and a mask, bool (B, length), that is False at padding;
            both are on the encoder's device.
        """
        batch: Any = self._tokenizer(
            [readable(caption, self.config.length) for caption in captions],
            padding="max_length", truncation=True, max_length=self.config.length,
            return_tensors="pt",
        )  # fmt: skip
        device = self.bert.device
        return batch["input_ids"].to(device), batch["attention_mask"].bool().to(device)

    def reading(self, caption: str) -> Reading:
        """Count the tokens of a caption, [CLS] and [SEP] included. Every text has tokens."""
        text = readable(caption, 2 * self.config.length)  # more than is encoded: the cut shows
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
        tokens, mask = self.tokens(captions)
        everywhere: Tensor = self.bert(
            input_ids=tokens, attention_mask=mask.long()
        ).last_hidden_state
        words = everywhere * mask.unsqueeze(-1)  # 0 at padding: code that ignores the mask is safe
        summed = everywhere if self.config.sentence == "sum" else words
        sentence = summed.sum(1) / mask.sum(1, keepdim=True)
        return TextFeatures(sentence, words, mask, tuple(captions))

    @property
    def _tokenizer(self) -> Any:
        """The tokenizer, whose types transformers does not declare."""
        return self.tokenizer

    def save_assets(self, folder: Path) -> None:
        """Write the network's configuration and the tokenizer.

        With them a saved model loads without the hub.

        Args:
            folder: The folder that they are written to.
        """
        self.bert.config.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)


def build(config: BertTextConfig, assets: Path | None) -> BertEncoder:
    """Build the encoder, with BERT's weights if it is new.

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
        return BertEncoder(config, load_text_model(config), load_tokenizer(config))
    check_folder(assets)
    refuse_foreign_code(BertConfig, assets, WHAT)
    if (shapes := shapes_saved(assets)) is not None:
        check_config(assets, shapes)
    network = BertModel(BertConfig.from_pretrained(assets), add_pooling_layer=False)
    return BertEncoder(config, network, BertTokenizer.from_pretrained(assets))
