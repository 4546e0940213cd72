"""The intervals hold the true values of simulated raters as often as they claim."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import logit

from t2i.benchmarks.votes.grades import estimate_means
from t2i.benchmarks.votes.strengths import estimate, fit_strengths, win_shares

UNEQUAL = (1, 1, 2, 2, 3, 3, 4, 5, 8, 12, 20, 30)
FOUR = (0.8, 0.3, -0.2, -0.9)


def coverage(world, times: int, seed: int) -> tuple[float, float]:
    """Percentage of intervals, of shares of wins and of differences, that hold the true value."""
    wins, ties = world.wins(np.random.default_rng(seed), times)
    truth = world.truth()
    shares = (truth.sum(1) - 0.5) / (len(truth) - 1)
    b = fit_strengths(1e6 * truth * (1 - np.eye(len(truth))))
    # as many votes a rater in all simulations; the number of ties differs by chance
    strengths, logits = estimate(wins, ties)
    held = np.abs(logits.values - logit(shares)) <= logits.margins()
    found, margins = strengths.differences()
    pairs = np.triu_indices(len(truth), 1)
    differences = (np.abs(found - (b[:, None] - b)) <= margins)[:, pairs[0], pairs[1]]
    return 100 * float(held.mean()), 100 * float(differences.mean())


CASES = [
    (strengths, effect, votes)
    for strengths in (FOUR, (0.5, -0.5), (2.0, 0.0, -2.0))
    for effect in (0.4, 0.7, 1.0)
    for votes in ((10,) * 5, (6,) * 8, (5,) * 12, (4,) * 30, UNEQUAL)
]


@pytest.mark.slow
@pytest.mark.parametrize(("strengths", "effect", "votes"), CASES)
def test_intervals_of_raters_who_differ_hold_the_truth(world, strengths, effect, votes) -> None:
    found = coverage(world(strengths, effect, votes), 2000, 1)
    print(strengths, effect, len(votes), "unequal" if votes == UNEQUAL else votes[0], found)
    assert all(93 <= percent <= 97.5 for percent in found), found


@pytest.mark.parametrize("votes", [(6,) * 8, UNEQUAL])
def test_500_simulations_hold_the_truth_in_93_to_97_percent(world, votes) -> None:
    for percent in coverage(world(FOUR, 0.7, votes), 500, 2):
        assert 93 <= percent <= 97, percent


def test_raters_who_do_not_differ_make_no_short_intervals(world) -> None:
    for percent in coverage(world(FOUR, 0.0, (6,) * 8), 500, 3):
        assert 93 <= percent <= 98, percent


def test_resampling_votes_would_be_too_sure(world) -> None:
    """Why raters are resampled: intervals of votes on their own miss the truth far more often."""
    case = world(FOUR, 1.0, (10,) * 8)
    wins, ties = case.wins(np.random.default_rng(4), 500)
    truth = case.truth()
    _, logits = estimate(wins, ties)
    errors = np.sqrt(np.diagonal(logits.covariance, axis1=-2, axis2=-1))
    target = logit((truth.sum(1) - 0.5) / (len(truth) - 1))
    assert (np.abs(logits.values - target) <= 1.96 * errors).mean() < 0.85


@pytest.mark.slow
@pytest.mark.parametrize("votes", [(10,) * 5, (5,) * 12, UNEQUAL])
def test_percentiles_of_resampled_raters_are_too_short(world, votes) -> None:
    """Why the intervals are none of the bootstrap's, which docs/votes.md compares."""
    case, rng = world(FOUR, 0.7, votes), np.random.default_rng(2)
    wins, _ = case.wins(rng, 300)
    shares = (case.truth().sum(1) - 0.5) / (len(FOUR) - 1)
    counts = rng.multinomial(len(votes), np.full(len(votes), 1 / len(votes)), size=200)
    again = win_shares(fit_strengths(np.einsum("bg,sgij->bsij", counts, wins)))
    low, high = np.percentile(again, [2.5, 97.5], axis=0)
    held = 100 * float(((low <= shares) & (shares <= high)).mean())
    print(len(votes), held)
    assert 75 <= held <= 93


def grades(effect: float, raters: int, each: int, times: int) -> tuple[NDArray[np.float64], ...]:
    """Grades 0 to 4 of three models by raters who differ, and the true means."""
    rng = np.random.default_rng(5)
    centre = np.array([1.2, 2.0, 3.0])

    def drawn(shape: tuple[int, ...]) -> NDArray[np.float64]:
        own = centre + effect * rng.standard_normal(shape)
        return np.clip(np.round(own + rng.standard_normal((each, *shape))), 0, 4)

    values = drawn((times, raters, 3))
    truth = drawn((20_000, 3)).mean((0, 1))
    return values.sum(0), np.full((times, raters, 3), float(each)), (values**2).sum(0), truth


@pytest.mark.parametrize(("raters", "each"), [(5, 10), (12, 4)])
def test_intervals_of_grades_hold_the_truth(raters: int, each: int) -> None:
    *sums, truth = grades(0.6, raters, each, 500)
    means = estimate_means(*sums)
    assert 0.93 <= (np.abs(means.values - truth) <= means.margins()).mean() <= 0.97
