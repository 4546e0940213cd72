"""Measure the cost of sampling: seconds per image, and what the sampler's loop adds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from t2i.core.devices import best_device
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.sampler import Sampler
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig

DRAWN = 32
"""Number of images that are sampled to measure the time."""


@dataclass(frozen=True)
class Drawing:
    """The cost of sampling.

    Args:
        seconds: Seconds per image, text encoder included.
        added: Time that the sampler's loop adds to the generator's own time, as a fraction of the
            latter.
    """

    seconds: float
    added: float


def measure_drawing(config: RunConfig) -> Drawing:
    """Measure the cost of sampling an untrained model by its own sampler, after a batch to warm up.

    The weights do not matter to the cost.

    Args:
        config: The model's configuration.

    Returns:
        The cost.
    """
    model = build(config).to(best_device())
    captions = ["an image of something"] * DRAWN
    list(model.stream(captions[:4]))
    started = time.perf_counter()
    list(model.stream(captions))
    seconds = (time.perf_counter() - started) / DRAWN
    return Drawing(seconds, _added(model))


@torch.no_grad()
def _added(model: Model) -> float:
    """Sample one batch, and compare its time with that of the generator's calls and its decoder."""
    choice, generator = model.sampler(), model.generator
    sampler: Sampler = registry().samplers.build(choice)
    noise = PromptNoise(0, tuple((0, n) for n in range(DRAWN)), model.device)
    request = model.request(["an image of something"] * DRAWN, noise, null=sampler.needs_null)
    inside = _Inside()
    generator.forward = inside.timed(generator.forward)
    if isinstance(generator, DiffusionGenerator):
        generator.decode = inside.timed(generator.decode)  # type: ignore[method-assign]
    started = _now()
    sampler.sample(generator, request)
    return (_now() - started) / inside.seconds - 1


class _Inside:
    """Adds up the time that functions take."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **named: Any) -> Any:
            started = _now()
            output = function(*inputs, **named)
            self.seconds += _now() - started
            return output

        return call


def _now() -> float:
    """Return the time, after the device has finished its work."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
