"""The vocabulary of the text encoder `words`: that of its pretrained weights, or the data set's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from t2i.plugins.encoders.words.config import WordsConfig, split
from t2i.plugins.encoders.words.weights import described


def fit(config: WordsConfig, texts: Iterable[str]) -> WordsConfig:
    """Fill the vocabulary, unless it is filled already.

    Args:
        config: Settings.
        texts: Captions of the data set.

    Returns:
        The settings with the sizes and words of the pretrained weights, if they name some. Else
        with the words of `texts`: the most frequent first, ties in alphabetical order.

    Raises:
        UserError: The pretrained weights cannot be found.
    """
    if config.vocabulary:
        return config
    if config.weights:
        return described(config)
    counts = Counter(word for text in texts for word in split(text, config.max_words))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return config.model_copy(update={"vocabulary": tuple(ranked[: config.vocabulary_size])})
