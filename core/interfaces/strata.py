"""Timesteps for validation: each example has the middle of a stratum of the noise levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from t2i.core.interfaces.noise import StepNoise
from t2i.core.interfaces.trainer import Batch

STRATA = 8
"""Number of strata."""

DRAW = "t"
"""Name of the uniform draw from which trainers make timesteps."""


def middles(count: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the middles of the strata of [0, 1], repeated.

    Args:
        count: Number of examples.
        device: Device of the result.

    Returns:
        Levels in (0, 1), float32 (count,): 1/16, 3/16, ..., 15/16, 1/16, ...
    """
    return (torch.arange(count, device=device) % STRATA + 0.5) / STRATA


@dataclass(frozen=True)
class StratifiedNoise(StepNoise):
    """A source of noise whose uniform draw `DRAW` of one number an image is that of `middles`."""

    def _draw(self, kind: str, name: str, step: int, shape: Sequence[int]) -> Tensor:
        if kind == "random" and name == DRAW and not shape:
            return middles(len(self), self.device)
        return super()._draw(kind, name, step, shape)


def stratified(batch: Batch) -> Batch:
    """Replace the timesteps of a batch by the middles of strata.

    Args:
        batch: The batch, whose trainer makes timesteps of the uniform draw `DRAW`.

    Returns:
        The batch; all other random numbers are as before.
    """
    own = {each.name: getattr(batch.noise, each.name) for each in fields(batch.noise)}
    return replace(batch, noise=StratifiedNoise(**own))
