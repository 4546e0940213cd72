"""Sentences as networks like them: mean 0 and variance 1 in every number."""

from __future__ import annotations

from torch import nn


class Standardise(nn.BatchNorm1d):
    """Batch norm of sentence vectors, without a gain and a bias.

    The vectors of an encoder lie close together: a network that is fed with them sees their mean
    before it sees their differences.

    Args:
        sentence: Width D of a sentence vector.
    """

    def __init__(self, sentence: int) -> None:
        super().__init__(sentence, affine=False)


def sentence_input(sentence: int, standardise: bool) -> nn.Module:
    """Build the first layer of a branch that takes sentences.

    Args:
        sentence: Width D of a sentence vector.
        standardise: Whether the vectors are standardised.

    Returns:
        A module from (B, D) to (B, D).
    """
    return Standardise(sentence) if standardise else nn.Identity()
