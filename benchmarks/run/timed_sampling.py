"""Sampling images to be scored, with a clock."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.interfaces.scoring import ImageBatch
from t2i.core.models.model import Model, Sample
from t2i.core.registry.choice import Choice


@dataclass
class Clock:
    """Seconds spent drawing, scoring apart."""

    seconds: float = 0.0
    images: int = 0


def timed(
    model: Model, captions: Sequence[str], clock: Clock, *, n: int = 1, seed: int = 0,
    sampler: Choice[SamplerConfig] | None = None, size: int | None = None,
) -> Iterator[ImageBatch]:  # fmt: skip
    """Images of the captions, on noise that depends on the caption's and the sample's number alone; of `size` pixels,
    if that is given."""
    batches = model.stream(captions, n=n, seed=seed, sampler=sampler)
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        clock.seconds += time.perf_counter() - started
        clock.images += len(batch)
        yield images_of(batch, captions, size)


def images_of(
    batch: Sequence[Sample], captions: Sequence[str], size: int | None = None
) -> ImageBatch:
    """A drawn batch with its captions; of `size` pixels, if that is given."""
    prompts = tuple(drawn.prompt for drawn in batch)
    images = [drawn.image if size is None else resized(drawn.image, size) for drawn in batch]
    return ImageBatch(np.stack(images), tuple(captions[p] for p in prompts), prompts)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """An image (H, H, 3) of another size: Lanczos, which antialiases when it reduces. Of that size, itself."""
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))
