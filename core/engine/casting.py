"""Autocast's cache: weights are cast once between two updates, not at every use."""

from __future__ import annotations

from functools import cache

import torch
from torch.nn import functional as F

from t2i.core.settings.engine import EngineConfig


@cache
def casts_once() -> bool:
    """Return whether autocast may keep the weights that it has cast.

    It may not in a torch whose cache keeps weights that were first cast under `no_grad` without
    their gradients. A product of two numbers on the CPU shows it.

    Returns:
        Whether it may.
    """
    weight, x = torch.ones(1, 1, requires_grad=True), torch.ones(1, 1)
    with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=True):
        with torch.no_grad():
            F.linear(x, weight)
        return F.linear(x, weight).requires_grad


def keeps_casts(settings: EngineConfig) -> bool:
    """Tell whether training keeps the weights that it has cast.

    Args:
        settings: The settings.

    Returns:
        Whether it does. With gradient checkpointing it does not, as they take half as much memory
        as the weights: each block casts its own when it is computed. With `parallel=fsdp` it does
        not either: the cache would keep weights that are shared out.
    """
    return casts_once() and not settings.gradient_checkpointing and settings.parallel == "data"


def forget_casts() -> None:
    """Drop the cast weights. Call it after each update: they are those of before."""
    if torch.is_autocast_cache_enabled():
        torch.clear_autocast_cache()
