"""Judge models by their mean grades on a scale."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from t2i.benchmarks.votes.agreement import krippendorff
from t2i.benchmarks.votes.estimates import Estimates, effective_raters
from t2i.benchmarks.votes.judgement import Judgement, Place
from t2i.benchmarks.votes.ranking import last_votes, rank_ranges, rater_notes, votes_needed
from t2i.benchmarks.votes.record import ScaleVote

Floats = NDArray[np.float64]

HIGHEST = 4.0
"""The best grade; the worst is 0."""


def estimate_means(sums: Floats, counts: Floats, squares: Floats) -> Estimates:
    """Estimate the mean grade of each model, over all votes.

    Args:
        sums: Sum of the grades of each rater for each model, float (..., G, K).
        counts: Number of these grades, (..., G, K); each model has one at least.
        squares: Sum of their squares, (..., G, K).

    Returns:
        The means, with all that their intervals need.
    """
    total, count = sums.sum(-2), counts.sum(-2)
    means = total / count
    with np.errstate(invalid="ignore"):  # 0 / 0: nobody else has rated the model
        without = (total[..., None, :] - sums) / (count[..., None, :] - counts)
    # one more grade is half the scale off, so that equal grades do not vary by nothing
    spread = squares.sum(-2) - total * means + (HIGHEST / 2) ** 2
    variances = spread / (count * (count + 1))
    raters = effective_raters(counts.sum(-1).reshape(-1, counts.shape[-2])[0])
    return Estimates(means, without, np.eye(means.shape[-1]) * variances[..., None], raters)


def judge_grades(question: str, given: Sequence[ScaleVote]) -> Judgement:
    """Judge models by grades.

    Args:
        question: Title of the table.
        given: The votes, one at least.

    Returns:
        The table. A value is a mean grade.
    """
    votes = last_votes(given, [(v.rater, v.question, v.item, v.model) for v in given])
    names = sorted({vote.model for vote in votes})
    sums, counts, squares = _sums(votes, names)
    means = estimate_means(sums, counts, squares)
    settled, margins = means.settled(), means.margins()
    order = [int(i) for i in np.argsort(-means.values, kind="stable")]
    ranks = rank_ranges(settled)
    places = []
    for i in order:
        mean, margin = float(means.values[i]), float(margins[i])
        low, high = (None, None) if np.isnan(margin) else _within(mean - margin, mean + margin)
        places.append(Place(names[i], mean, low, high, int(counts[:, i].sum()), *ranks[i]))
    raters = len(counts)
    grades = Counter(vote.value for vote in votes)
    return Judgement(
        question, "scale", places, len(votes), raters,
        {str(grade): grades[grade] for grade in range(int(HIGHEST) + 1)},
        krippendorff(
            [(v.rater, (v.question, v.item, v.model), v.value) for v in votes], "ordinal"
        ),
        needed=votes_needed(means, order, names, settled, len(votes), raters),
        notes=rater_notes(raters, len(given), len(votes)),
    )  # fmt: skip


def _sums(votes: Sequence[ScaleVote], names: Sequence[str]) -> tuple[Floats, Floats, Floats]:
    """Return sums, counts and sums of squares of the grades, by rater and model."""
    raters = {name: number for number, name in enumerate(dict.fromkeys(v.rater for v in votes))}
    place = {name: number for number, name in enumerate(names)}
    found = np.zeros((3, len(raters), len(names)))
    for vote in votes:
        found[:, raters[vote.rater], place[vote.model]] += (vote.value, 1, vote.value**2)
    return found[0], found[1], found[2]


def _within(low: float, high: float) -> tuple[float, float]:
    """Return an interval, cut to the scale."""
    return max(0.0, low), min(HIGHEST, high)
