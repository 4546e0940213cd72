"""The noise levels of NCSN: a variance-exploding path that is known at L levels only."""

from __future__ import annotations

import math

import torch
from scipy.optimize import brentq
from scipy.special import ndtr
from torch import Tensor

from t2i.core.families.continuous import VESchedule
from t2i.core.families.schedule import MOST_NOISE, Spacing, chosen_indexes


class NoiseLevels(VESchedule):
    """The path x_t = x_0 + t eps at the levels sigma_1 > ... > sigma_L, a geometric sequence.

    Timesteps are sigma itself, so that every sampler finds its way. Chains visit the levels only.

    Source: Song & Ermon 2019, section 4.1.

    Args:
        sigma_1: Largest level.
        sigma_L: Smallest level.
        levels: L, at least 2.

    Raises:
        ValueError: Not 0 < sigma_L < sigma_1, or fewer than two levels.
    """

    def __init__(self, sigma_1: float, sigma_L: float, levels: int) -> None:
        super().__init__(sigma_L, sigma_1)
        if levels < 2:
            raise ValueError("at least two noise levels are needed")
        self.levels = levels
        self._log_ratio = math.log(sigma_1 / sigma_L) / (levels - 1)

    def __len__(self) -> int:
        return self.levels

    def at(self, indexes: Tensor) -> Tensor:
        """Compute the levels, counted from the least noisy one.

        Args:
            indexes: Numbers of levels (n,), from 0 (sigma_L) to L - 1 (sigma_1).

        Returns:
            Their sigma, float64 (n,).
        """
        return self.sigma_min * torch.exp(indexes.double() * self._log_ratio)

    def level(self, t: Tensor) -> Tensor:
        """Return the share of the levels that are not above t, as DDPM counts: (index + 1) / L."""
        return 1 - self.embedded(t) / self.levels

    def time_at(self, level: Tensor) -> Tensor:
        """Return level number floor(level L) of those from the least noisy one on."""
        indexes = (level * self.levels).long().clamp_(max=self.levels - 1)
        return self.at(indexes).to(level.dtype)

    def embedded(self, t: Tensor) -> Tensor:
        """Return the number of the level as the authors count: 0 is sigma_1, L - 1 is sigma_L.

        Between two levels it is a fraction, linear in log(sigma).
        """
        index = torch.log(self.max_ratio / t.double()) / self._log_ratio
        return index.clamp(0, self.levels - 1).to(t.dtype)

    def times(
        self,
        n: int | None,
        *,
        spacing: Spacing = "trailing",
        offset: int = 0,
        most: float | None = MOST_NOISE,
    ) -> Tensor:
        """Choose levels, float64 (n,), ascending, as `DiscreteSchedule.times` chooses indexes."""
        everything = self.at(torch.arange(self.levels))
        within = None if most is None else int((everything <= most).sum())
        return everything[chosen_indexes(self.levels, n, within, spacing, offset)]


def overlap(ratio: float, values: int) -> float:
    """Compute how much of a noise level's mass lies where that of the level above it does.

    For data of D values the radius of the noise is close to N(sqrt(D) sigma, sigma^2 / 2). The
    result is the mass of the radius at sigma_i within three standard deviations at sigma_(i-1).

    Source: Song & Ermon 2020, proposition 2 and technique 2.

    Args:
        ratio: gamma = sigma_(i-1) / sigma_i, above 1.
        values: Number D of values of an image.

    Returns:
        Phi(sqrt(2D) (gamma - 1) + 3 gamma) - Phi(sqrt(2D) (gamma - 1) - 3 gamma), from 0 to 1.
    """
    apart = math.sqrt(2 * values) * (ratio - 1)
    return float(ndtr(apart + 3 * ratio) - ndtr(apart - 3 * ratio))


def level_count(sigma_1: float, sigma_L: float, values: int, wanted: float = 0.5) -> int:
    """Count the levels of a geometric sequence whose neighbours overlap by a given mass.

    Source: Song & Ermon 2020, technique 2.

    Args:
        sigma_1: Largest level.
        sigma_L: Smallest level.
        values: Number D of values of an image.
        wanted: The overlap C, between 0 and 1.

    Returns:
        L, the number of levels whose ratio is nearest to the solution, at least 2.
    """
    ratio = brentq(lambda gamma: overlap(gamma, values) - wanted, 1 + 1e-9, 100.0)
    return max(2, round(math.log(sigma_1 / sigma_L) / math.log(ratio)) + 1)
