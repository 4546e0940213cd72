"""Solvers of ordinary differential equations in which every image has steps of its own.

scipy's and torchdiffeq's solvers choose one step for a whole batch, so that an image would depend
on the others in its batch. Here each image has its own position and step; the network is called
for all of them at once. Coefficients and the choice of steps are scipy's: for one image the steps
are those of `scipy.integrate.solve_ivp`, with which Song et al. 2021 sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.integrate import RK23, RK45
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.schedule import like

Method = Literal["rk45", "rk23"]
"""Names of the adaptive methods: Dormand and Prince's of order 5, Bogacki and Shampine's of order
3."""

METHODS = {"rk45": RK45, "rk23": RK23}
"""Methods by name. scipy's classes hold the coefficients."""

SAFETY, LEAST_FACTOR, MOST_FACTOR = 0.9, 0.2, 10.0  # of scipy's choice of steps
MOST_STEPS = 10_000  # steps of one image, before the solver gives up

Field = Callable[[Tensor, Tensor], Tensor]
"""`field(position, y)` returns dy / dposition (B, ...) at positions (B,), float64 on the CPU, and y
(B, ...)."""


@dataclass(frozen=True)
class Solver:
    """An adaptive Runge-Kutta solver.

    A step is accepted where the root mean square over an image of error / (atol + rtol |y|) is
    below 1.

    Args:
        method: The method.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
    """

    method: Method = "rk45"
    rtol: float = 1e-5
    atol: float = 1e-5

    def solve(
        self,
        field: Field,
        y: Tensor,
        start: float,
        end: float,
        progress: Callable[[float], None] = lambda share: None,
    ) -> Tensor:
        """Follow the field from one position to another.

        Args:
            field: The field.
            y: Values at the start, float (B, ...).
            start: Position at the start.
            end: Position at the end, below or above the start.
            progress: Called after each step with the share of the way, 0 to 1, that the slowest
                image has gone.

        Returns:
            Values at the end, (B, ...).

        Raises:
            UserError: An image needs steps that are too small or too many.
        """
        way = end - start
        if not way or not len(y):
            return y
        position = torch.full((len(y),), start, dtype=torch.float64)
        slope = field(position, y)
        step = self._first_step(field, y, slope, position, way)
        retried = torch.zeros(len(y), dtype=torch.bool)
        for _ in range(MOST_STEPS):
            left = (end - position).abs()
            last = step >= left
            step = torch.where(last, left, step)
            signed = step.copysign(torch.tensor(way, dtype=step.dtype))
            lost = ~(_size(y) + _size(slope)).isfinite()  # what is no number stays so
            tried, new_slope, error = self._try(field, y, slope, position, signed)
            good = (error < 1) | lost  # a step that overflows is retried, shorter
            here = torch.where(last | lost, torch.full_like(position, end), position + signed)
            position = torch.where(good, here, position)
            y, slope = _rows(good, tried, y), _rows(good, new_slope, slope)
            if bool((position == end).all()):
                progress(1.0)
                return y
            step = step * self._factor(error, retried)
            retried = ~good
            self._check(step, position, position == end)
            progress(float(((position - start) / way).min()))
        raise UserError(f"the solver took {MOST_STEPS} steps and is not done: raise rtol and atol")

    def _try(
        self, field: Field, y: Tensor, slope: Tensor, position: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Try a step: the new values, their slopes, and the size of the error (B,)."""
        method, h = METHODS[self.method], like(step.to(y.dtype).to(y.device), y)
        slopes = [slope]
        for row, share in zip(method.A[1:], method.C[1:], strict=True):
            inner = y + h * _weighted(slopes, row)
            slopes.append(field(position + float(share) * step, inner))
        tried = y + h * _weighted(slopes, method.B)
        slopes.append(field(position + step, tried))
        scale = self.atol + self.rtol * torch.maximum(y.abs(), tried.abs())
        return tried, slopes[-1], _size(h * _weighted(slopes, method.E) / scale)

    def _first_step(
        self, field: Field, y: Tensor, slope: Tensor, position: Tensor, way: float
    ) -> Tensor:
        """Choose the first step of each image, (B,).

        Source: Hairer, Norsett & Wanner 1993, Solving Ordinary Differential Equations I, II.4.
        """
        scale = self.atol + self.rtol * y.abs()
        d_0, d_1 = _size(y / scale), _size(slope / scale)
        first = torch.where(
            (d_0 < 1e-5) | (d_1 < 1e-5), torch.full_like(d_0, 1e-6), d_0 / d_1 / 100
        )
        first = first.clamp_max(abs(way))
        signed = first.copysign(torch.tensor(way, dtype=first.dtype))
        h = like(signed.to(y.dtype).to(y.device), y)
        d_2 = _size((field(position + signed, y + h * slope) - slope) / scale) / first
        largest = torch.maximum(d_1, d_2)
        second = (0.01 / largest) ** (1 / (self._order + 1))
        second = torch.where(
            largest <= 1e-15, torch.maximum(first * 1e-3, first.new_tensor(1e-6)), second
        )
        return torch.minimum(100 * first, second).clamp_max(abs(way))

    @property
    def _order(self) -> int:
        """Order of the estimate of the error."""
        return int(METHODS[self.method].error_estimator_order)

    def _factor(self, error: Tensor, retried: Tensor) -> Tensor:
        """Choose by how much each step changes, (B,)."""
        wanted = SAFETY * error.clamp_min(1e-12) ** (-1 / (self._order + 1))
        most = torch.where((error >= 1) | retried, 1.0, MOST_FACTOR)
        return wanted.nan_to_num(LEAST_FACTOR).clamp(LEAST_FACTOR).minimum(most.to(wanted))

    def _check(self, step: Tensor, position: Tensor, done: Tensor) -> None:
        """Stop where steps are lost in rounding."""
        if bool(((step < 1e-14 * position.abs().clamp_min(1.0)) & ~done).any()):
            raise UserError("the solver's steps became too small: raise rtol and atol")


def fixed_steps(
    field: Field,
    y: Tensor,
    start: float,
    end: float,
    steps: int,
    progress: Callable[[float], None] = lambda share: None,
) -> Tensor:
    """Follow a field in steps of one size, by the classical Runge-Kutta method of order 4.

    Args:
        field: The field.
        y: Values at the start, float (B, ...).
        start: Position at the start.
        end: Position at the end.
        steps: Number of steps, at least 1. Each takes four calls of the field.
        progress: Called after each step with the share of the way, 0 to 1.

    Returns:
        Values at the end, (B, ...).
    """
    h = (end - start) / steps
    for number in range(steps):
        at = torch.full((len(y),), start + number * h, dtype=torch.float64)
        k_1 = field(at, y)
        k_2 = field(at + h / 2, y + h / 2 * k_1)
        k_3 = field(at + h / 2, y + h / 2 * k_2)
        k_4 = field(at + h, y + h * k_3)
        y = y + h / 6 * (k_1 + 2 * k_2 + 2 * k_3 + k_4)
        progress((number + 1) / steps)
    return y


def _weighted(slopes: Sequence[Tensor], weights: np.ndarray) -> Tensor:
    """Add slopes with weights, of which there may be more than slopes: these are 0."""
    total = torch.zeros_like(slopes[0])
    for slope, weight in zip(slopes, weights.tolist(), strict=False):
        total = total + weight * slope
    return total


def _size(x: Tensor) -> Tensor:
    """Compute the root mean square of each image, float64 (B,), on the CPU."""
    return x.flatten(1).square().mean(1).sqrt().cpu().double()


def _rows(which: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Take the rows of `a` where `which` (B,) is true, else those of `b`."""
    return torch.where(which.to(a.device).view(-1, *[1] * (a.dim() - 1)), a, b)
