"""Noise schedules in continuous time: VP, sub-VP, VE, and the straight path of flow matching."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.schedule import (
    MOST_NOISE,
    THOUSAND,
    DiscreteSchedule,
    Schedule,
    Spacing,
)


class VPSchedule(Schedule):
    """The variance-preserving path in continuous time, with t in (0, 1].

    alpha(t) = exp(-1/2 int_0^t beta), where beta(t) = beta_0 + t (beta_1 - beta_0). Source: Song et
    al. 2021, eq. 33.

    Args:
        beta_0: Rate at t = 0.
        beta_1: Rate at t = 1.

    Raises:
        ValueError: Not 0 < beta_0 < beta_1.
    """

    def __init__(self, beta_0: float = 0.1, beta_1: float = 20.0) -> None:
        if not 0 < beta_0 < beta_1:
            raise ValueError("0 < beta_0 < beta_1 is needed")
        self.beta_0, self.beta_1 = beta_0, beta_1
        self.max_ratio = math.sqrt(math.expm1((beta_0 + beta_1) / 2))

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(-self._integral(t) / 2)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(-self._integral(t)))

    def time_of(self, ratio: Tensor) -> Tensor:
        return self._time_of_integral(torch.log1p(ratio.clamp_max(self.max_ratio).square()))

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Compute d alpha / dt = -alpha beta / 2 and d sigma / dt = alpha^2 beta / (2 sigma).

        The latter is infinite at t = 0.
        """
        beta, alpha = self.beta(t), self.alpha(t)
        return -alpha * beta / 2, alpha**2 * beta / (2 * self.sigma(t))

    def beta(self, t: Tensor) -> Tensor:
        """Compute beta(t).

        Args:
            t: Timesteps, (B,).

        Returns:
            The rates, (B,).
        """
        return self.beta_0 + t * (self.beta_1 - self.beta_0)

    def embedded(self, t: Tensor) -> Tensor:
        return t * THOUSAND

    def _integral(self, t: Tensor) -> Tensor:
        """Compute int_0^t beta."""
        return self.beta_0 * t + (self.beta_1 - self.beta_0) * t.square() / 2

    def _time_of_integral(self, wanted: Tensor) -> Tensor:
        """Find the t with int_0^t beta = wanted, without cancellation."""
        slope = self.beta_1 - self.beta_0
        return 2 * wanted / (self.beta_0 + (self.beta_0**2 + 2 * slope * wanted).sqrt())


class SubVPSchedule(VPSchedule):
    """The path of the sub-VP equation: alpha of the VP path, and sigma(t) = 1 - alpha(t)^2.

    It is not variance-preserving: alpha^2 + sigma^2 is below 1 in between. Source: Song et al.
    2021, eq. 29.

    Args:
        beta_0: Rate at t = 0.
        beta_1: Rate at t = 1.

    Raises:
        ValueError: Not 0 < beta_0 < beta_1.
    """

    def __init__(self, beta_0: float = 0.1, beta_1: float = 20.0) -> None:
        super().__init__(beta_0, beta_1)
        self.max_ratio = 2 * math.sinh((beta_0 + beta_1) / 4)

    def sigma(self, t: Tensor) -> Tensor:
        return -torch.expm1(-self._integral(t))

    def time_of(self, ratio: Tensor) -> Tensor:
        # ratio = 1 / alpha - alpha = 2 sinh(int / 2), since alpha = exp(-int / 2).
        return self._time_of_integral(2 * torch.asinh(ratio.clamp_max(self.max_ratio) / 2))

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Compute d alpha / dt = -alpha beta / 2 and d sigma / dt = alpha^2 beta."""
        beta, alpha = self.beta(t), self.alpha(t)
        return -alpha * beta / 2, alpha**2 * beta


class VESchedule(Schedule):
    """The variance-exploding path x_t = x_0 + t eps: timesteps are sigma itself.

    Source: Song et al. 2021; EDM (Karras et al. 2022).

    Args:
        sigma_min: Smallest sigma of a chain.
        sigma_max: Largest sigma.
        rho: Exponent of the spacing of chains.

    Raises:
        ValueError: Not 0 < sigma_min < sigma_max.
    """

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        if not 0 < sigma_min < sigma_max:
            raise ValueError("0 < sigma_min < sigma_max is needed")
        self.sigma_min, self.max_ratio, self.rho = sigma_min, sigma_max, rho

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def time_of(self, ratio: Tensor) -> Tensor:
        return ratio.clamp(self.sigma_min, self.max_ratio)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.ones_like(t)

    def times(
        self,
        n: int | None,
        *,
        spacing: Spacing = "trailing",
        offset: int = 0,
        most: float | None = MOST_NOISE,
    ) -> Tensor:
        """Choose timesteps evenly spaced in sigma^(1 / rho), from sigma_min to sigma_max.

        Source: Karras et al. 2022, eq. 5.

        Raises:
            UserError: The schedule has no such chain, or `most` is not above sigma_min.
        """
        n, end = self._counted(n, spacing), self._most(most)
        if end <= self.sigma_min:
            raise UserError(
                f"sigma_max = {end:g}: this model's lowest noise level is {self.sigma_min:g}: name "
                "a higher one"
            )
        first = self.sigma_min if n > 1 else end
        roots = torch.linspace(
            first ** (1 / self.rho), end ** (1 / self.rho), n, dtype=torch.float64
        )
        return roots**self.rho


class FlowSchedule(Schedule):
    """The straight path x_t = (1 - t) x_0 + t eps, with t in [0, 1]. Settings call it "mixing".

    It is the path of rectified flow and flow matching, and the mixing of cold diffusion.
    """

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def time_of(self, ratio: Tensor) -> Tensor:
        return 1 / (1 + 1 / ratio)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(t), torch.ones_like(t)

    def level(self, t: Tensor) -> Tensor:
        return t

    def time_at(self, level: Tensor) -> Tensor:
        return level

    def embedded(self, t: Tensor) -> Tensor:
        return t * THOUSAND


CONTINUOUS: dict[str, type[Schedule]] = {
    "mixing": FlowSchedule,
    "vp": VPSchedule,
    "sub-vp": SubVPSchedule,
}
"""The continuous schedules by the names that settings use."""


def named_schedule(name: str, steps: int = 1000) -> Schedule:
    """Make a schedule by the name that settings use.

    Args:
        name: A name of `CONTINUOUS`, or one for `DiscreteSchedule.named`.
        steps: Number of steps of a discrete schedule.

    Returns:
        The schedule.

    Raises:
        ValueError: The name is unknown.
    """
    if name in CONTINUOUS:
        return CONTINUOUS[name]()
    return DiscreteSchedule.named(name, steps)
