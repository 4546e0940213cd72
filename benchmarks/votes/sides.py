"""Whether raters prefer a side, which the shuffled sides must not decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from t2i.benchmarks.votes.estimates import Estimates, effective_raters
from t2i.benchmarks.votes.record import PairVote


@dataclass(frozen=True)
class Sides:
    """How often the left image wins, of the votes that say left or right.

    Args:
        left: The share, from 0 to 1. None: no vote says left or right.
        low: Lower end of its 95 % interval. None: there is one rater.
        high: Upper end.
        votes: Number of votes that say left or right.
    """

    left: float | None
    low: float | None
    high: float | None
    votes: int

    @property
    def biased(self) -> bool:
        """Whether the interval leaves out one half."""
        return self.low is not None and self.high is not None and not self.low <= 0.5 <= self.high


def left_wins(votes: Sequence[PairVote]) -> Sides:
    """Estimate how often the left image wins.

    Args:
        votes: The votes; ties and "both bad" are left out.

    Returns:
        The share, with an interval that leaves out one rater at a time.
    """
    by_rater: dict[str, list[bool]] = {}
    for vote in votes:
        if vote.choice in ("left", "right"):
            by_rater.setdefault(vote.rater, []).append(vote.choice == "left")
    left = np.array([float(sum(choices)) for choices in by_rater.values()])
    count = np.array([float(len(choices)) for choices in by_rater.values()])
    total = count.sum()
    if not total:
        return Sides(None, None, None, 0)
    share = left.sum() / total
    if len(count) < 2:
        return Sides(float(share), None, None, int(total))
    without = (left.sum() - left) / (total - count)
    smooth = (left.sum() + 1) / (total + 2)
    variance = smooth * (1 - smooth) / total
    margin = Estimates(
        np.array([share]), without[:, None], np.array([[variance]]), effective_raters(count)
    ).margins()[0]
    low, high = max(0.0, share - margin), min(1.0, share + margin)
    return Sides(float(share), float(low), float(high), int(total))
