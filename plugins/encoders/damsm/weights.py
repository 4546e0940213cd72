"""The authors' released files of the text encoder: its weights, and a pickle of its vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from t2i.core.models.weights import load_state
from t2i.plugins.common.text.damsm import check_vocabulary, lstm_state, pickled_vocabulary
from t2i.plugins.common.weights.legacy import read_legacy
from t2i.plugins.encoders.damsm.config import DamsmConfig, split


def load(encoder: nn.Module, path: Path, words: int, captions: str | None) -> None:
    """Load the authors' text_encoder*.pth into an encoder.

    Args:
        encoder: The encoder to fill.
        path: Path of the file.
        words: Number of words in the encoder's vocabulary.
        captions: File of the vocabulary, for errors. None: the settings list it.

    Raises:
        UserError: The file is something else, or has another vocabulary size or width.
    """
    state = lstm_state(read_legacy(path))
    named = f" with {captions}" if captions else ""
    check_vocabulary(state, words, f"weights {path}{named}")
    load_state(encoder, state, f"weights {path}")


def fit(config: DamsmConfig, texts: Iterable[str]) -> DamsmConfig:
    """Fill the vocabulary, unless it is filled already.

    Args:
        config: Settings. If they name the authors' `captions`, the vocabulary is read from there.
        texts: Captions of the data set, from which the vocabulary is built otherwise: the most
            frequent word first, ties in alphabetical order.

    Returns:
        The settings with a vocabulary.

    Raises:
        UserError: The authors' file cannot be read.
    """
    if config.vocabulary:
        return config
    if config.captions:
        return config.model_copy(update={"vocabulary": pickled_vocabulary(Path(config.captions))})
    counts = Counter(word for text in texts for word in split(text, config.max_words))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return config.model_copy(update={"vocabulary": tuple(ranked[: config.vocabulary_size])})
