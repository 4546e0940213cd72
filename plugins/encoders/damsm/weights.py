"""What the authors released of the text encoder: its weights, and the pickle that holds its vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from t2i.core.models.weights import load_state
from t2i.plugins.common.text.damsm import lstm_state, pickled_vocabulary
from t2i.plugins.common.weights.legacy import read_legacy
from t2i.plugins.encoders.damsm.config import DamsmConfig, split


def load(encoder: nn.Module, path: Path) -> None:
    """Loads the authors' text_encoder*.pth. UserError if it is none, or of another vocabulary or width."""
    load_state(encoder, lstm_state(read_legacy(path)), f"weights {path}")


def fit(config: DamsmConfig, texts: Iterable[str]) -> DamsmConfig:
    """The settings with their vocabulary: the authors', if named, else that of `texts`, most frequent first, ties in
    alphabetical order."""
    if config.vocabulary:
        return config
    if config.captions:
        return config.model_copy(update={"vocabulary": pickled_vocabulary(Path(config.captions))})
    counts = Counter(word for text in texts for word in split(text, config.max_words))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return config.model_copy(update={"vocabulary": tuple(ranked[: config.vocabulary_size])})
