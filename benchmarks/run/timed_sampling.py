"""Sample images to score, and measure the time that sampling takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.interfaces.scoring import ImageBatch
from t2i.core.models.model import Model
from t2i.core.models.wanted import Sample
from t2i.core.registry.choice import Choice


@dataclass
class Clock:
    """Adds up the time of sampling.

    Args:
        seconds: Seconds spent on sampling, without scoring.
        images: Number of images sampled in that time.
    """

    seconds: float = 0.0
    images: int = 0


def timed(
    model: Model, captions: Sequence[str], clock: Clock, *, n: int = 1, seed: int = 0,
    sampler: Choice[SamplerConfig] | None = None, size: int | None = None,
) -> Iterator[ImageBatch]:  # fmt: skip
    """Sample images of captions, and add the time to a clock.

    The noise of an image depends on the seed and the numbers of its caption and sample alone.

    Args:
        model: The model.
        captions: The captions.
        clock: Receives the seconds and the number of images.
        n: Images of each caption.
        seed: Seed of the noise.
        sampler: The sampler. None: the model's own.
        size: Width and height of the images in pixels. None: as the model makes them.

    Yields:
        The images in batches, caption by caption.
    """
    keys = [(p, s) for p in range(len(captions)) for s in range(n)]
    batches = model.stream(captions, seed=seed, sampler=sampler, keys=keys)
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
    """Make a batch to score from samples.

    Args:
        batch: The samples.
        captions: All captions; a sample holds the index of its own.
        size: Width and height of the images in pixels. None: as they are.

    Returns:
        The images with their captions, grouped by caption.
    """
    prompts = tuple(drawn.prompt for drawn in batch)
    images = [drawn.image if size is None else resized(drawn.image, size) for drawn in batch]
    return ImageBatch(np.stack(images), tuple(captions[p] for p in prompts), prompts)


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """Resize a square image by Lanczos resampling, which antialiases when it reduces.

    Args:
        image: The image, uint8 (H, H, 3).
        size: The new width and height in pixels.

    Returns:
        The image, uint8 (size, size, 3); the same one if it has that size.
    """
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))
