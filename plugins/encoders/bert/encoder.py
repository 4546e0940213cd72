"""The text encoder `bert`: the frozen BERT of Devlin et al. 2019."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import BertConfig, BertModel, BertTokenizer

from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.text.frozen import FrozenEncoder
from t2i.plugins.common.weights.transformers_folders import check_saved
from t2i.plugins.encoders.bert.config import BertTextConfig
from t2i.plugins.encoders.bert.weights import (
    WHAT,
    check_config,
    check_fit,
    load_text_model,
    load_tokenizer,
)


class BertEncoder(FrozenEncoder):
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
        self.config, self.tokenizer, self.length = config, tokenizer, config.length
        width = network.config.hidden_size
        self.shape = TextShape(width, width)
        bert: Any = network  # transformers' types do not describe the parts
        bert.pooler = None
        self.bert: Any = bert
        self.float().requires_grad_(False).eval()

    @property
    def network(self) -> Any:
        return self.bert

    def encode_distinct(self, captions: Sequence[str]) -> TextFeatures:
        tokens, mask = self.tokens(captions)
        everywhere: Tensor = self.bert(
            input_ids=tokens, attention_mask=mask.long()
        ).last_hidden_state
        words = everywhere * mask.unsqueeze(-1)  # 0 at padding: code that ignores the mask is safe
        summed = everywhere if self.config.sentence == "sum" else words
        sentence = summed.sum(1) / mask.sum(1, keepdim=True)
        return TextFeatures(sentence, words, mask, tuple(captions))


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
    check_saved(assets, BertConfig, WHAT, check_config)
    network = BertModel(BertConfig.from_pretrained(assets), add_pooling_layer=False)
    return BertEncoder(config, network, BertTokenizer.from_pretrained(assets))
