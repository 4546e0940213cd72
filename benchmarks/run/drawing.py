"""Drawing with a clock: pictures to be scored, seconds a picture, and what the sampler's loop adds to the network's
own work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from t2i.core.devices import best_device
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.sampler import Sampler, SamplerConfig
from t2i.core.interfaces.scoring import Pictures
from t2i.core.models.building import build
from t2i.core.models.model import Drawn, Model
from t2i.core.registry.choice import Choice
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig

DRAWN = 32  # pictures that sampling is timed on


@dataclass
class Clock:
    """Seconds spent drawing, scoring apart."""

    seconds: float = 0.0
    pictures: int = 0


def timed(
    model: Model, captions: Sequence[str], clock: Clock, *, n: int = 1, seed: int = 0,
    sampler: Choice[SamplerConfig] | None = None, size: int | None = None,
) -> Iterator[Pictures]:  # fmt: skip
    """Pictures of the captions, on noise that depends on the caption's and the sample's number alone; of `size` pixels,
    if that is given."""
    batches = model.draw(captions, n=n, seed=seed, sampler=sampler)
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        clock.seconds += time.perf_counter() - started
        clock.pictures += len(batch)
        yield pictures_of(batch, captions, size)


def pictures_of(batch: Sequence[Drawn], captions: Sequence[str], size: int | None = None) -> Pictures:
    """A drawn batch with its captions; of `size` pixels, if that is given."""
    prompts = tuple(drawn.prompt for drawn in batch)
    images = [drawn.image if size is None else resized(drawn.image, size) for drawn in batch]
    return Pictures(np.stack(images), tuple(captions[p] for p in prompts), prompts)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """A picture (H, H, 3) of another size: Lanczos, which antialiases when it reduces. Of that size, itself."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))


@dataclass(frozen=True)
class Drawing:
    """seconds: to draw a picture, text features and all. added: what the sampler's loop adds to the time that the
    generator itself takes, as a share of that."""

    seconds: float
    added: float


def measure_drawing(config: RunConfig) -> Drawing:
    """With the model's own sampler, after a batch to warm up. Weights do not matter to that."""
    model = build(config).to(best_device())
    captions = ["a picture of something"] * DRAWN
    list(model.draw(captions[:4]))
    started = time.perf_counter()
    list(model.draw(captions))
    seconds = (time.perf_counter() - started) / DRAWN
    return Drawing(seconds, _added(model))


@torch.no_grad()
def _added(model: Model) -> float:
    """One batch, with a clock on the generator's calls and on its decoder."""
    choice, generator = model.sampler(), model.generator
    sampler: Sampler = registry().samplers.build(choice)
    noise = PromptNoise(0, tuple((0, n) for n in range(DRAWN)), model.device)
    request = model.request(["a picture of something"] * DRAWN, noise, null=sampler.needs_null)
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
