"""What sampling costs: seconds an image, and what the sampler's loop adds to the network's own work."""

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
"""Images that sampling is timed on."""


@dataclass(frozen=True)
class Drawing:
    """seconds: to draw an image, text features and all. added: what the sampler's loop adds to the time that the
    generator itself takes, as a share of that."""

    seconds: float
    added: float


def measure_drawing(config: RunConfig) -> Drawing:
    """With the model's own sampler, after a batch to warm up. Weights do not matter to that."""
    model = build(config).to(best_device())
    captions = ["an image of something"] * DRAWN
    list(model.stream(captions[:4]))
    started = time.perf_counter()
    list(model.stream(captions))
    seconds = (time.perf_counter() - started) / DRAWN
    return Drawing(seconds, _added(model))


@torch.no_grad()
def _added(model: Model) -> float:
    """One batch, with a clock on the generator's calls and on its decoder."""
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
    """Adds up the seconds that functions take."""

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
    """The time when all that was asked of the device is done."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
