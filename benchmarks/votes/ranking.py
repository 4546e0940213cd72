"""Ranks that votes leave open, and how many more votes close them."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from t2i.benchmarks.votes.estimates import Estimates
from t2i.benchmarks.votes.judgement import Needed
from t2i.benchmarks.votes.record import Vote

FEW = 5
"""From so many raters on, the intervals have been tested."""

V = TypeVar("V", bound=Vote)


def last_votes(votes: Iterable[V], keys: Iterable[Hashable]) -> list[V]:
    """Keep one vote of each rater on the same images: the last.

    Args:
        votes: The votes.
        keys: For each vote, the rater and what was voted on.

    Returns:
        The votes that are kept, in their order.
    """
    return list(dict(zip(keys, votes, strict=True)).values())


def rank_ranges(settled: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Say which ranks are not excluded.

    Args:
        settled: Whether model i is better than model j for sure, bool (K, K).

    Returns:
        The best and the worst rank of each model, from 1.
    """
    worse_than, better_than = settled.sum(0), settled.sum(1)
    return [
        (1 + int(above), len(settled) - int(below))
        for above, below in zip(worse_than, better_than, strict=True)
    ]


def votes_needed(
    estimates: Estimates,
    order: Sequence[int],
    names: Sequence[str],
    settled: NDArray[np.bool_],
    votes: int,
    raters: int,
) -> list[Needed]:
    """Estimate how many votes settle the neighbours that are not settled.

    Args:
        estimates: Estimates of K models.
        order: The models, the best first.
        names: Their names.
        settled: As for `rank_ranges`.
        votes: Number of votes.
        raters: Number of raters.

    Returns:
        An entry for each pair of neighbours that is not settled.
    """
    found = []
    for i, j in pairwise(order):
        if not settled[i, j]:
            times = estimates.times_needed(i, j)
            more = None if times is None else max(1, math.ceil(raters * (times - 1)))
            added = None if more is None else math.ceil(votes * more / raters)
            found.append(Needed((names[i], names[j]), added, more))
    return found


def rater_notes(raters: int, given: int, kept: int) -> list[str]:
    """Say what is to be known about the raters.

    Args:
        raters: Their number.
        given: Number of votes in the files.
        kept: Number of votes that count.

    Returns:
        Sentences.
    """
    notes = []
    if raters == 1:
        notes.append(
            "There is one rater: how far raters differ is not known, so nothing is settled."
        )
    elif raters < FEW:
        notes.append(
            f"There are {raters} raters: the intervals are wide, and rest on how far these differ."
        )
    if given > kept:
        notes.append(
            f"{given - kept} votes of raters on images they had voted on before replace those."
        )
    return notes
