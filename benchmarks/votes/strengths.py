"""Bradley-Terry strengths from pairs: the most probable ones under a weak prior.

Model i wins against model j with the probability s(b_i - b_j), where s is the logistic function
and b are the strengths. Source: Bradley and Terry 1952. A tie counts as half a win of each.

The prior is one more vote for each model: a tie with a model of strength 0. So a model that wins
every vote has a finite strength, and b needs no other anchor.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from t2i.benchmarks.votes.estimates import Estimates, effective_raters

Floats = NDArray[np.float64]

PRIOR = 1.0
"""Weight of the tie with a model of strength 0 that each model is given, in votes."""

STEPS = 100  # Newton's method takes about six
LONGEST = 1.0  # of its steps, so that it cannot leap over the maximum
CLOSE = 1e-10


def fit_strengths(wins: Floats, start: Floats | None = None, prior: float = PRIOR) -> Floats:
    """Find the most probable strengths.

    The log posterior is sum_ij wins_ij log s(b_i - b_j) + prior/2 sum_i log s(b_i) s(-b_i). It is
    concave; Newton's method climbs it.

    Args:
        wins: How often model i won against model j, a tie as 0.5 for both, float (..., K, K). The
            leading dimensions are separate fits.
        start: Strengths to begin with, (..., K). None: zeros.
        prior: Weight of the prior, in votes, above 0.

    Returns:
        The strengths, float (..., K), as natural logarithms of odds.
    """
    won = wins.sum(-1) + prior / 2
    b = np.zeros(wins.shape[:-1]) if start is None else np.broadcast_to(start, wins.shape[:-1])
    for _ in range(STEPS):
        p = expit(b[..., :, None] - b[..., None, :])
        slope = won - ((wins + _turned(wins)) * p).sum(-1) - prior * expit(b)
        step = np.linalg.solve(_curvature(wins, b, prior), slope[..., None])[..., 0]
        size = np.abs(step).max(-1, keepdims=True, initial=0)
        b = b + step * np.minimum(1, LONGEST / np.maximum(size, CLOSE))
        if size.max(initial=0) < CLOSE:
            break
    return b


def _curvature(wins: Floats, b: Floats, prior: float) -> Floats:
    """Return minus the matrix of second derivatives of the log posterior, (..., K, K)."""
    p = expit(b[..., :, None] - b[..., None, :])
    met = (wins + _turned(wins)) * p * (1 - p)
    own = prior * expit(b) * expit(-b)
    result: Floats = np.eye(b.shape[-1]) * (met.sum(-1) + own)[..., None] - met
    return result


def _turned(matrix: Floats) -> Floats:
    return np.swapaxes(matrix, -1, -2)


def win_shares(strengths: Floats) -> Floats:
    """Compute how often each model wins if it meets each of the others equally often.

    Args:
        strengths: Strengths, float (..., K), of at least two models.

    Returns:
        The mean over the other models j of s(b_i - b_j), float (..., K), from 0 to 1.
    """
    p = expit(strengths[..., :, None] - strengths[..., None, :])
    result: Floats = (p.sum(-1) - 0.5) / (strengths.shape[-1] - 1)
    return result


def estimate(wins: Floats, ties: Floats | float = 0.0) -> tuple[Estimates, Estimates]:
    """Estimate strengths and shares of wins, with all that their intervals need.

    Args:
        wins: By rater: how often model i won against model j, a tie as 0.5 for both, float
            (..., G, K, K). The leading dimensions are separate estimates, of as many votes.
        ties: How many votes are ties, (...): they vary less than wins and losses do.

    Returns:
        The strengths; and the logits of the shares of wins (`win_shares`), whose intervals so stay
        between 0 and 1.
    """
    total = wins.sum(-3)
    b = fit_strengths(total)
    without = fit_strengths(total[..., None, :, :] - wins, b[..., None, :])
    covariance = np.linalg.inv(_curvature(total, b, PRIOR)) * _dispersion(total, b, ties)
    raters = effective_raters(wins.sum((-1, -2)).reshape(-1, wins.shape[-3])[0])
    slopes = _slopes(b)
    return Estimates(b, without, covariance, raters), Estimates(
        logit(win_shares(b)),
        logit(win_shares(without)),
        slopes @ covariance @ _turned(slopes),
        raters,
    )


def _dispersion(wins: Floats, b: Floats, ties: Floats | float) -> Floats:
    """Return how much less votes vary than without ties, float (..., 1, 1).

    A vote y is 1, 1/2 or 0, with the mean p and the variance p (1 - p) - P(tie) / 4. One vote is
    added to the sums, so that ties alone do not vary by nothing.
    """
    p = expit(b[..., :, None] - b[..., None, :])
    varying = ((wins + _turned(wins)) * p * (1 - p)).sum((-1, -2)) / 2
    result: Floats = (np.maximum(varying - ties / 4, 0) + 1) / (varying + 1)
    return result[..., None, None]


def _slopes(b: Floats) -> Floats:
    """Return the derivatives of the logits of the shares of wins, float (..., K, K)."""
    p = expit(b[..., :, None] - b[..., None, :])
    others = p * (1 - p) * (1 - np.eye(b.shape[-1])) / (b.shape[-1] - 1)
    shares = win_shares(b)
    inner = np.eye(b.shape[-1]) * others.sum(-1, keepdims=True) - others
    result: Floats = inner / (shares * (1 - shares))[..., None]
    return result
