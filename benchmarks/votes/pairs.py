"""Judge models by votes on pairs of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.special import expit

from t2i.benchmarks.votes.agreement import krippendorff
from t2i.benchmarks.votes.judgement import Judgement, Place
from t2i.benchmarks.votes.ranking import last_votes, rank_ranges, rater_notes, votes_needed
from t2i.benchmarks.votes.record import PairVote
from t2i.benchmarks.votes.sides import left_wins
from t2i.benchmarks.votes.strengths import PRIOR, estimate, fit_strengths, win_shares

Floats = NDArray[np.float64]

NO_PRIOR = PRIOR / 100
"""Weight of a prior that changes next to nothing."""


def judge_pairs(question: str, given: Sequence[PairVote]) -> Judgement:
    """Judge models by pairs.

    "tie" and "bad" both count as half a win of each model: neither says that one is better.

    Args:
        question: Title of the table.
        given: The votes, one at least.

    Returns:
        The table. A value is the share of wins in percent.
    """
    votes = last_votes(given, [(v.rater, *_seen(v)) for v in given])
    names = sorted({name for vote in votes for name in (vote.left, vote.right)})
    wins = count_wins(votes, names)
    choices = Counter(vote.choice for vote in votes)
    strengths, logits = estimate(wins, choices["tie"] + choices["bad"])
    met = wins.sum(0) + wins.sum(0).T
    groups = connected_components(met > 0, directed=False)[1]
    settled = strengths.settled() & (groups[:, None] == groups[None, :])
    shares, margins = 100 * expit(logits.values), logits.margins()
    bounds = 100 * expit(logits.values + np.outer((-1, 1), margins))
    order = [int(i) for i in np.argsort(-shares, kind="stable")]
    ranks = rank_ranges(settled)
    places = []
    for i in order:
        low, high = _known(bounds[:, i])
        places.append(
            Place(
                names[i], float(shares[i]), low, high, int(met[i].sum()), *ranks[i],
                float(strengths.values[i]), _bad(votes, names[i]),
            )
        )  # fmt: skip
    raters = len(wins)
    notes = rater_notes(raters, len(given), len(votes))
    if groups.any():
        apart = "; ".join(
            ", ".join(name for name, group in zip(names, groups, strict=True) if group == number)
            for number in range(max(groups) + 1)
        )
        notes.append(f"These groups were never compared with each other: {apart}.")
    return Judgement(
        question, "pair", places, len(votes), raters,
        {choice: choices[choice] for choice in ("left", "right", "tie", "bad")},
        krippendorff([(v.rater, _seen(v), _answer(v)) for v in votes], "nominal"),
        left_wins(votes), _prior(wins.sum(0), shares),
        votes_needed(strengths, order, names, settled, len(votes), raters), notes,
    )  # fmt: skip


def count_wins(votes: Sequence[PairVote], names: Sequence[str]) -> Floats:
    """Count wins by rater.

    Args:
        votes: The votes.
        names: The models.

    Returns:
        How often model i won against model j, ties and "both bad" as 0.5 for both, float (G, K, K).
    """
    raters = {name: number for number, name in enumerate(dict.fromkeys(v.rater for v in votes))}
    place = {name: number for number, name in enumerate(names)}
    wins = np.zeros((len(raters), len(names), len(names)))
    for vote in votes:
        left, right = place[vote.left], place[vote.right]
        won = {"left": 1.0, "right": 0.0}.get(vote.choice, 0.5)
        wins[raters[vote.rater], left, right] += won
        wins[raters[vote.rater], right, left] += 1 - won
    return wins


def _seen(vote: PairVote) -> tuple[str, str, str, str]:
    """Return what a vote is on, whichever image was on the left."""
    first, second = sorted((vote.left, vote.right))
    return vote.question, vote.item, first, second


def _answer(vote: PairVote) -> float:
    """Return 0 if the first of the two names won, 1 if the second did, 2 if neither did."""
    if vote.choice not in ("left", "right"):
        return 2.0
    winner = vote.left if vote.choice == "left" else vote.right
    return float(winner != min(vote.left, vote.right))


def _known(bounds: Floats) -> tuple[float, float] | tuple[None, None]:
    """Return the ends of an interval; None if there is none."""
    low, high = map(float, bounds)
    return (None, None) if np.isnan(low) or np.isnan(high) else (low, high)


def _bad(votes: Sequence[PairVote], name: str) -> float:
    """Return the share of "both bad" among the votes on a model."""
    own = [vote.choice == "bad" for vote in votes if name in (vote.left, vote.right)]
    return sum(own) / len(own)


def _prior(wins: Floats, shares: Floats) -> dict[str, float]:
    """Say how much the prior weighs, and how far it moves the shares of wins."""
    bare = 100 * win_shares(fit_strengths(wins, prior=NO_PRIOR))
    return {"votes": PRIOR, "moves": float(np.abs(bare - shares).max())}
