"""Bradley-Terry strengths: against evalica, the written likelihood, and cases known by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit

from t2i.benchmarks.votes.strengths import PRIOR, estimate, fit_strengths, win_shares


def random_wins(models: int, seed: int) -> np.ndarray:
    wins = np.random.default_rng(seed).integers(0, 12, (models, models)) / 2
    np.fill_diagonal(wins, 0)
    return wins


@pytest.mark.parametrize("models", [2, 3, 6])
def test_strengths_maximise_the_written_posterior(models: int) -> None:
    wins = random_wins(models, models)

    def loss(b: np.ndarray) -> float:
        likelihood = (wins * log_expit(b[:, None] - b[None, :])).sum()
        return float(-likelihood - PRIOR / 2 * (log_expit(b) + log_expit(-b)).sum())

    found = minimize(loss, np.zeros(models), method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(fit_strengths(wins), found.x, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_evalica_finds_the_same_strengths_with_the_prior_as_votes(seed: int) -> None:
    evalica = pytest.importorskip("evalica")
    wins = random_wins(4, seed)
    left, right, weights, winners = [], [], [], []
    for i, j in zip(*np.nonzero(wins), strict=True):
        left.append(f"m{i}")
        right.append(f"m{j}")
        weights.append(float(wins[i, j]))
        winners.append(evalica.Winner.X)
    for i in range(4):
        left.append(f"m{i}")
        right.append("average")
        weights.append(PRIOR)
        winners.append(evalica.Winner.Draw)
    scores = evalica.bradley_terry(
        left, right, winners, weights=weights, tolerance=1e-12, limit=10_000
    ).scores
    against = [np.log(scores[f"m{i}"] / scores["average"]) for i in range(4)]
    np.testing.assert_allclose(fit_strengths(wins), against, atol=1e-6)


def test_a_model_that_wins_all_is_finite_and_nearly_always_wins() -> None:
    for votes in (1, 10, 10_000):
        b = fit_strengths(np.array([[0.0, votes], [0.0, 0.0]]))
        share = win_shares(b)[0]
        assert np.isfinite(b).all()
        assert votes / (votes + 2) < share < 1


def test_the_prior_hardly_moves_a_hundred_votes() -> None:
    share = win_shares(fit_strengths(np.array([[0.0, 70.0], [30.0, 0.0]])))[0]
    assert 0.69 < share < 0.70


def test_models_that_always_tie_are_equal_and_order_does_not_matter() -> None:
    np.testing.assert_allclose(fit_strengths(3 * (1 - np.eye(3))), 0, atol=1e-12)
    wins, order = random_wins(5, 7), [3, 1, 4, 0, 2]
    np.testing.assert_allclose(
        fit_strengths(wins[np.ix_(order, order)]), fit_strengths(wins)[order], atol=1e-9
    )


def test_shares_are_those_of_the_votes_where_all_met_as_often() -> None:
    upper = np.triu(np.array([[0, 9, 7, 8], [0, 0, 6, 4], [0, 0, 0, 5], [0, 0, 0, 0.0]]), 1)
    wins = 1000 * (upper + np.tril(10 - upper.T, -1))
    np.testing.assert_allclose(win_shares(fit_strengths(wins)), wins.sum(1) / 30_000, atol=1e-4)


def test_intervals_of_independent_votes_are_those_of_finite_differences() -> None:
    """The covariance of the logits of shares follows from that of strengths by the delta rule."""
    strengths, logits = estimate(np.stack([random_wins(3, 1), random_wins(3, 2)]))
    b, step = strengths.values, 1e-5
    slopes = np.stack(
        [
            (logit(win_shares(b + step * e)) - logit(win_shares(b - step * e))) / (2 * step)
            for e in np.eye(3)
        ],
        axis=1,
    )
    np.testing.assert_allclose(
        logits.covariance, slopes @ strengths.covariance @ slopes.T, rtol=1e-5, atol=1e-9
    )
    np.testing.assert_allclose(expit(logits.values), win_shares(b))


def test_without_a_rater_means_fitted_without_that_rater() -> None:
    wins = np.stack([random_wins(3, seed) for seed in range(4)])
    strengths, _ = estimate(wins)
    np.testing.assert_allclose(strengths.without[2], fit_strengths(wins[[0, 1, 3]].sum(0)))
