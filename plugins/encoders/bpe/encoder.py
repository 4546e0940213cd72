"""The text encoder `bpe`: no network, only the tokens of byte-pair encoding (Sennrich et al. 2016).

Words are split at spaces and punctuation, and their characters are joined pair by pair, as in
OpenAI's GPT and kakaobrain's minDALL-E.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import CharBPETokenizer, Tokenizer
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.text import Reading, TextEncoder, TextFeatures, TextShape
from t2i.plugins.common.text.readable import readable
from t2i.plugins.common.text.tokens import padded, token_features
from t2i.plugins.encoders.bpe.config import PAD, UNKNOWN, BPEConfig


class BPEEncoder(TextEncoder):
    """Turns captions into numbers of tokens, for models that have vectors for them.

    `extras["tokens"]` holds the tokens, int64 (B, length); `mask` tells padding from the others. A
    caption without tokens has one of padding that counts.
    `words` (B, length, 1) are the same numbers, divided by that of all tokens, and `sentence` is
    their mean: no model can learn much from them.

    Args:
        config: Settings, with a filled vocabulary.

    Raises:
        UserError: The vocabulary lacks a token that `merges` make.
    """

    def __init__(self, config: BPEConfig) -> None:
        super().__init__()
        self.config = config
        self.shape = TextShape(1, 1)
        self.tokenizer = tokenizer_of(config)
        numbers = self.tokenizer.get_vocab(with_added_tokens=True)
        self.pad: int = numbers[PAD]
        self.unknown: int = numbers[UNKNOWN]
        self.register_buffer("anchor", torch.zeros(1), persistent=False)
        self.anchor: Tensor

    def numbers(self, caption: str) -> list[int]:
        """Split a caption into tokens.

        Args:
            caption: The caption.

        Returns:
            The numbers of all its tokens.
        """
        text = readable(caption, 8 * self.config.length)
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def reading(self, caption: str) -> Reading:
        encoding = self.tokenizer.encode(
            readable(caption, 16 * self.config.length), add_special_tokens=False
        )
        unknown = tuple(
            caption[start:end]
            for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
            if number == self.unknown
        )
        return Reading("tokens", len(encoding.ids), unknown, self.config.length)

    def encode(self, captions: Sequence[str]) -> TextFeatures:
        length = self.config.length
        rows = [self.numbers(caption) for caption in captions]
        tokens, counts = padded(rows, length, self.pad, self.anchor.device)
        # Of a caption without tokens one of padding counts: attention needs something to attend to.
        return token_features(tokens, counts.clamp_min(1), len(self.config.vocabulary), captions)


def tokenizer_of(config: BPEConfig) -> Tokenizer:
    """Build the tokenizer.

    Args:
        config: Settings, with a filled vocabulary.

    Returns:
        The tokenizer. It neither pads nor cuts.

    Raises:
        UserError: Vocabulary and merges do not fit together.
    """
    numbers = {token: i for i, token in enumerate(config.vocabulary or (PAD, UNKNOWN))}
    merges = [(a, b) for a, b in (pair.split(" ") for pair in config.merges)]
    try:
        made = CharBPETokenizer(numbers, merges, unk_token=UNKNOWN, lowercase=config.lower)
    except Exception as error:  # tokenizers raises a plain Exception
        raise UserError(f"text encoder 'bpe': {error}; is it the right vocabulary?") from None
    made.add_special_tokens([PAD])
    inner: Tokenizer = made._tokenizer
    return inner


def fit(config: BPEConfig, texts: Iterable[str]) -> BPEConfig:
    """Make a vocabulary of captions, unless there is one already.

    Args:
        config: Settings.
        texts: Captions of the data set.

    Returns:
        The settings with vocabulary and merges.
    """
    if config.vocabulary:
        return config
    made = CharBPETokenizer(unk_token=UNKNOWN, lowercase=config.lower)
    captions, inner = list(texts), made._tokenizer
    # Last characters of words, in order: the library numbers them by chance, which decides ties.
    last = {
        piece[-1]
        for caption in captions
        for piece, _ in inner.pre_tokenizer.pre_tokenize_str(
            inner.normalizer.normalize_str(caption)
        )
    }
    made.train_from_iterator(
        iter(captions), vocab_size=config.vocabulary_size, min_frequency=2,
        special_tokens=[PAD, UNKNOWN, *(f"{c}</w>" for c in sorted(last))], show_progress=False,
    )  # fmt: skip
    numbers = made.get_vocab(with_added_tokens=True)
    state = json.loads(made.to_str())["model"]["merges"]
    merges = tuple(pair if isinstance(pair, str) else " ".join(pair) for pair in state)
    vocabulary = tuple(sorted(numbers, key=numbers.__getitem__))
    return config.model_copy(update={"vocabulary": vocabulary, "merges": merges})


def build(config: BPEConfig, assets: Path | None) -> BPEEncoder:
    """Build the encoder.

    Args:
        config: Settings, with a filled vocabulary.
        assets: Not used: the settings hold all there is.

    Returns:
        The encoder.
    """
    return BPEEncoder(config)
