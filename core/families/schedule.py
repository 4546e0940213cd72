"""Noise schedules of diffusion models: x_t = alpha(t) x_0 + sigma(t) eps, with eps ~ N(0, I).

A schedule is a Gaussian path from images to noise. Any such path is variance-preserving
(alpha^2 + sigma^2 = 1) once it is divided by norm(t) = sqrt(alpha^2 + sigma^2); x_0 and eps stay
the same. Every sampler therefore works with every schedule. What a network predicts along the path
is in `prediction.py`.

Letters as in DDPM (Ho et al. 2020): alpha(t) here is the paper's sqrt(abar_t), and sigma(t) is its
sqrt(1 - abar_t).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from t2i.core.errors import UserError

Spacing = Literal["trailing", "leading", "linspace"]
"""Ways to choose the timesteps of a chain (see `DiscreteSchedule.times`)."""

MOST_NOISE = 200.0
"""Largest sigma / alpha at which chains begin.

It matters for schedules that end with (almost) no signal. Solvers in sigma / alpha would take one
enormous step there, and predictions divided by alpha would be lost to rounding. DDPM's linear
schedule ends at 157 and Stable Diffusion's at 14.6, so neither is cut.
"""

THOUSAND = 1000
"""Factor of noise levels from 0 to 1 before a network embeds them.

A network's sinusoids then resolve them as well as the indexes of a discrete schedule.
"""


class Schedule(ABC):
    """The base class of schedules: a path x_t = alpha(t) x_0 + sigma(t) eps.

    Timesteps `t` are (B,) tensors that grow with the noise. What they are depends on the schedule:
    indexes, shares of the path, or sigma itself. All methods of `t` return (B,) tensors on its
    device.

    Attributes:
        max_ratio: sigma / alpha at the noisiest timestep. inf: the path ends without signal.
    """

    max_ratio: float = math.inf

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Compute the factor of x_0.

        Args:
            t: Timesteps, (B,).

        Returns:
            alpha(t), (B,).
        """

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Compute the factor of eps.

        Args:
            t: Timesteps, (B,).

        Returns:
            sigma(t), (B,).
        """

    @abstractmethod
    def time_of(self, ratio: Tensor) -> Tensor:
        """Find the timesteps of given ratios of noise to signal.

        Args:
            ratio: sigma / alpha, (B,). Ratios beyond the path are moved to its ends.

        Returns:
            Timesteps, (B,).
        """

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the derivatives of alpha and sigma, by default by automatic differentiation.

        Args:
            t: Timesteps, (B,).

        Returns:
            d alpha / dt and d sigma / dt, (B,) each.
        """
        return _rate(self.alpha, t), _rate(self.sigma, t)

    def level(self, t: Tensor) -> Tensor:
        """Compute the noise level, from 0 (clean) to 1 (noise). By default sigma / (alpha + sigma).

        Args:
            t: Timesteps, (B,).

        Returns:
            Noise levels, (B,).
        """
        alpha, sigma = self.alpha(t), self.sigma(t)
        return sigma / (alpha + sigma)

    def time_at(self, level: Tensor) -> Tensor:
        """Find the timesteps of given noise levels, as the inverse of `level`.

        Args:
            level: Noise levels, (B,), from 0 to 1.

        Returns:
            Timesteps, (B,).
        """
        return self.time_of(level / (1 - level))

    def embedded(self, t: Tensor) -> Tensor:
        """Compute the number that a network embeds for a timestep.

        By default it is the noise level times 1000, whatever the timesteps are.

        Args:
            t: Timesteps, (B,).

        Returns:
            Numbers, (B,).
        """
        return self.level(t) * THOUSAND

    def times(
        self,
        n: int | None,
        *,
        spacing: Spacing = "trailing",
        offset: int = 0,
        most: float | None = MOST_NOISE,
    ) -> Tensor:
        """Choose the timesteps of a chain.

        The last step of the chain leads from the least noisy timestep to x_0. By default timesteps
        are evenly spaced in t, up to the end of the path.

        Args:
            n: Number of steps, at least 1. None: all steps of a discrete schedule.
            spacing: How the timesteps are chosen. Continuous schedules support "trailing" only.
            offset: Number added to "leading" timesteps.
            most: Largest sigma / alpha at which the chain begins. None: no bound, except that
                `MOST_NOISE` applies if the path ends without signal.

        Returns:
            Timesteps (n,), ascending: float64, or int64 for discrete schedules.

        Raises:
            UserError: The schedule has no such chain.
        """
        n = self._counted(n, spacing)
        whole, end = self.time_of(
            torch.tensor([self.max_ratio, self._most(most)], dtype=torch.float64)
        ).tolist()
        t = torch.linspace(whole / n, whole, n, dtype=torch.float64)
        if n > 1 and t[-2] >= end:  # clamping would make them equal
            return torch.linspace(end / n, end, n, dtype=torch.float64)
        return t.clamp_max(end)

    def _counted(self, n: int | None, spacing: Spacing) -> int:
        """Check the number of steps and the spacing for a continuous schedule."""
        if n is None:
            raise UserError(
                "this model's noise levels are continuous: name a number of sampling steps"
            )
        if spacing != "trailing":
            raise UserError(
                f"spacing = {spacing}: this model's noise levels are continuous: "
                "use spacing=trailing"
            )
        return n

    def _most(self, most: float | None) -> float:
        """Compute the largest sigma / alpha of a chain."""
        bound = (MOST_NOISE if math.isinf(self.max_ratio) else math.inf) if most is None else most
        return min(self.max_ratio, bound)


class DiscreteSchedule(Schedule):
    """A variance-preserving schedule of T steps, as in DDPM. Timesteps are the indexes 0 to T - 1.

    Fractional timesteps are interpolated in log(sigma / alpha) and clamped to [0, T - 1].

    Args:
        betas: Variances of the steps, (T,), each between 0 and 1.

    Raises:
        ValueError: `betas` is not such a vector.
    """

    def __init__(self, betas: Tensor) -> None:
        betas = betas.double()
        if betas.dim() != 1 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError("betas must be a vector of numbers between 0 and 1")
        self.betas = betas.float()
        self.alphas_cumprod = torch.cumprod(1 - betas, 0)
        self._alpha = self.alphas_cumprod.sqrt().float()
        self._sigma = (1 - self.alphas_cumprod).sqrt().float()
        self._log_ratio = ((1 - self.alphas_cumprod) / self.alphas_cumprod).log() / 2
        self.max_ratio = float(self._log_ratio[-1].exp())

    def __len__(self) -> int:
        return len(self.betas)

    def alpha(self, t: Tensor) -> Tensor:
        if t.is_floating_point():
            return torch.rsqrt(1 + self._ratio(t).square()).to(t.dtype)
        return self._alpha.to(t.device)[t]

    def sigma(self, t: Tensor) -> Tensor:
        if t.is_floating_point():
            return torch.rsqrt(1 + self._ratio(t).square().reciprocal()).to(t.dtype)
        return self._sigma.to(t.device)[t]

    def time_of(self, ratio: Tensor) -> Tensor:
        table = self._log_ratio.to(ratio.device)
        wanted = ratio.double().log().clamp(table[0], table[-1])
        if len(table) == 1:
            return torch.zeros_like(ratio)
        after = torch.searchsorted(table, wanted).clamp(1, len(table) - 1)
        share = (wanted - table[after - 1]) / (table[after] - table[after - 1])
        return (after - 1 + share).to(ratio.dtype)

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor]:
        # With l = log(sigma / alpha): d alpha = -alpha sigma^2 dl and d sigma = alpha^2 sigma dl.
        # dl / dt is computed by central differences of the steps.
        steps = (
            torch.gradient(self._log_ratio)[0]
            if len(self) > 1
            else torch.zeros(1, dtype=torch.float64)
        )
        alpha, sigma = self.alpha(t), self.sigma(t)
        rate = self._between(steps, t).to(alpha.dtype)
        return -alpha * sigma**2 * rate, alpha**2 * sigma * rate

    def level(self, t: Tensor) -> Tensor:
        """Return (t + 1) / T."""
        return (t + 1) / len(self)

    def time_at(self, level: Tensor) -> Tensor:
        """Return floor(level * T), at most T - 1."""
        return (level * len(self)).long().clamp_(max=len(self) - 1)

    def embedded(self, t: Tensor) -> Tensor:
        """Return the index itself."""
        return t

    def times(
        self,
        n: int | None,
        *,
        spacing: Spacing = "trailing",
        offset: int = 0,
        most: float | None = MOST_NOISE,
    ) -> Tensor:
        """Choose the indexes of a chain, int64 (n,), ascending.

        "trailing" begins at the noisiest index. "leading" is the spacing of the DDIM paper.
        "linspace" contains both ends. A chain of all T steps contains every index, whatever `most`
        is.
        """
        within = None if most is None else int((self._log_ratio.exp() <= most).sum())
        return chosen_indexes(len(self), n, within, spacing, offset)

    def _ratio(self, t: Tensor) -> Tensor:
        """Compute sigma / alpha (B,), float64, at fractional indexes."""
        return self._between(self._log_ratio, t).exp()

    def _between(self, table: Tensor, t: Tensor) -> Tensor:
        """Interpolate a table (T,) at fractional indexes t (B,), float64."""
        table, t = table.to(t.device), t.double().clamp(0, len(table) - 1)
        before = t.floor().long()
        after = (before + 1).clamp_max(len(table) - 1)
        return torch.lerp(table[before], table[after], t - before)

    @classmethod
    def named(cls, name: str, steps: int = 1000) -> DiscreteSchedule:
        """Make one of the common schedules.

        The end points of the linear schedules are those for T = 1000. For another T they are scaled
        so that abar_T stays the same.

        Args:
            name: "linear" (DDPM: betas from 1e-4 to 0.02), "scaled_linear" (LDM: linear in
                sqrt(beta), from 0.00085 to 0.012), or "cosine" (Nichol & Dhariwal 2021, eq. 17).
            steps: T.

        Returns:
            The schedule.

        Raises:
            ValueError: The name is unknown.
        """
        scale = 1000 / steps
        if name == "linear":
            return cls(
                torch.linspace(1e-4 * scale, 0.02 * scale, steps, dtype=torch.float64, device="cpu")
            )
        if name == "scaled_linear":
            roots = torch.linspace(
                (0.00085 * scale) ** 0.5,
                (0.012 * scale) ** 0.5,
                steps,
                dtype=torch.float64,
                device="cpu",
            )
            return cls(roots**2)
        if name == "cosine":
            abar = [
                math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(steps + 1)
            ]
            betas = [min(1 - after / before, 0.999) for before, after in pairwise(abar)]
            return cls(torch.tensor(betas, dtype=torch.float64, device="cpu"))
        raise ValueError(
            f"no noise schedule is named '{name}'; known: linear, scaled_linear, cosine"
        )


def chosen_indexes(
    steps: int, n: int | None, within: int | None, spacing: Spacing, offset: int = 0
) -> Tensor:
    """Choose the indexes of a chain among those of a schedule with discrete timesteps.

    Args:
        steps: Number of timesteps T of the schedule.
        n: Number of steps of the chain. None: T.
        within: Number of timesteps, from the least noisy one, among which a chain of fewer than T
            steps is chosen. It is raised to n. None: T.
        spacing: How the indexes are chosen.
        offset: Number added to "leading" indexes.

    Returns:
        Indexes, int64 (n,), ascending, from 0 to T - 1.

    Raises:
        UserError: n is above T.
    """
    n = steps if n is None else n
    if n > steps:
        raise UserError(
            f"{n} sampling steps: the model was trained with {steps}; ask for at most so many"
        )
    longest = steps if n == steps or within is None else max(n, within)
    if spacing == "trailing":
        chosen = [round((i + 1) * longest / n) - 1 for i in range(n)]
    elif spacing == "leading":
        chosen = [min(i * (longest // n) + offset, longest - 1) for i in range(n)]
    else:
        chosen = [round(i * (longest - 1) / max(n - 1, 1)) for i in range(n)]
    return torch.tensor(chosen)


def _rate(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """Differentiate a function of timesteps, row by row: df / dt (B,)."""
    with torch.enable_grad():
        at = t.detach().requires_grad_()
        value = function(at).sum()
        return torch.autograd.grad(value, at)[0] if value.requires_grad else torch.zeros_like(t)


def like(value: Tensor, x: Tensor) -> Tensor:
    """Reshape and cast one value for each image, so that it can be multiplied with the images.

    Args:
        value: Values, (B,).
        x: Images or latents, (B, ...).

    Returns:
        The values, (B, 1, ..., 1) with as many axes as `x`, in its type.
    """
    return value.to(x.dtype).view(-1, *[1] * (x.dim() - 1))


def add_noise(schedule: Schedule, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Compute x_t = alpha(t) x_0 + sigma(t) eps.

    Source: DDPM (Ho et al. 2020), eq. 4; thesis 2.23.

    Args:
        schedule: The path.
        x_0: Clean images or latents, (B, ...).
        t: Timestep of each, (B,).
        eps: Noise from N(0, I), (B, ...).

    Returns:
        x_t, (B, ...).
    """
    return like(schedule.alpha(t), x_0) * x_0 + like(schedule.sigma(t), x_0) * eps
