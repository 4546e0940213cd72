"""Votes of simulated raters, whose models' strengths are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from t2i.benchmarks.votes.record import PairVote

Floats = NDArray[np.float64]
TIME = "2026-11-30T12:00:00Z"


@dataclass(frozen=True)
class World:
    """Raters whose strengths vary normally around `strengths`, and who call some pairs ties.

    `votes` is how often each of the raters judges each pair of models.
    """

    strengths: tuple[float, ...]
    rater_effect: float
    votes: tuple[int, ...]
    ties: float = 0.15

    def wins(self, rng: np.random.Generator, times: int) -> tuple[Floats, Floats]:
        """Wins by rater (times, G, K, K), and the number of ties (times,)."""
        models, raters = len(self.strengths), len(self.votes)
        effects = self.rater_effect * rng.standard_normal((times, raters, models))
        own = np.array(self.strengths) + effects
        wins, tied = np.zeros((times, raters, models, models)), np.zeros(times)
        for i, j in zip(*np.triu_indices(models, 1), strict=True):
            count = np.broadcast_to(self.votes, (times, raters))
            ties = rng.binomial(count, self.ties)
            won = rng.binomial(count - ties, expit(own[..., i] - own[..., j]))
            wins[..., i, j] = won + ties / 2
            wins[..., j, i] = count - won - ties / 2
            tied += ties.sum(-1)
        return wins, tied

    def truth(self) -> Floats:
        """How often each model wins over all raters of this kind, as a table (K, K)."""
        own = np.array(self.strengths) + self.rater_effect * np.random.default_rng(
            9
        ).standard_normal((200_000, len(self.strengths)))
        chance = expit(own[:, :, None] - own[:, None, :]).mean(0)
        return chance * (1 - self.ties) + self.ties / 2


@pytest.fixture(scope="session")
def world() -> type[World]:
    return World


@pytest.fixture(scope="session")
def pair_votes() -> Callable[..., list[PairVote]]:
    return _pair_votes


def _pair_votes(
    strengths: dict[str, float], raters: int, each: int, seed: int = 0, question: str = "overall"
) -> list[PairVote]:
    """Votes of raters who do not differ, each on other images."""
    rng = np.random.default_rng(seed)
    names, votes = list(strengths), []
    for rater in range(raters):
        for order in range(each):
            left, right = map(str, rng.permutation(names)[:2])
            won = rng.random() < expit(strengths[left] - strengths[right])
            choice = str(rng.choice(["left" if won else "right", "tie", "bad"], p=[0.8, 0.1, 0.1]))
            votes.append(
                PairVote(
                    f"r{rater}", question, "a circle", f"k{rater}-{order}", left, right, choice,
                    order, TIME, 2.0,
                )
            )  # fmt: skip
    return votes
