"""Drawing what a visitor wishes, as `t2i sample` does. Importing this module imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.models.loading import find, load
from t2i.core.models.model import Model
from t2i.core.models.previewing import Previews, previews
from t2i.core.models.reading import warnings_of
from t2i.core.models.samples import write_samples
from t2i.web.draw.album import Drawing
from t2i.web.draw.desk import Job, explained
from t2i.web.draw.shelf import Shelf
from t2i.web.draw.sources import Source
from t2i.web.draw.wish import Settings
from t2i.web.site import Site

PREVIEWED = 6
"""The most previews at once."""

PAUSE = 0.7
"""Seconds between two previews."""

SHARE = 0.1
"""Largest share of the time that previews may take: decoding latents is slow."""


def loader(site: Site) -> Callable[[Source], Model]:
    """Return the function that loads the models of a site.

    Args:
        site: Names the device.

    Returns:
        The function.
    """
    return lambda source: load(find(source.place), site.device)


def draw(drawing: Drawing, places: Mapping[str, Source], shelf: Shelf, job: Job) -> None:
    """Draw all images of a wish, part by part. A model that fails leaves the others as they are.

    Args:
        drawing: The wish, and the folder of the images. Warnings are added to it.
        places: The models by name.
        shelf: The loaded models.
        job: Receives progress and previews, and says when to stop.

    Raises:
        Cancelled: The visitor cancelled it. Images that are done stay.
        UserError: Nothing at all could be drawn. The message is the first reason.
    """
    parts = [part.settings for part in drawing.wish.parts()]
    failed: list[str] = []
    for number, part in enumerate(parts):
        job.check()
        job.text = f"loading {part.model}"
        share = (number / len(parts), 1 / len(parts))
        try:
            _part(drawing, number, part, shelf.model(places[part.model]), places, job, share)
        except UserError as error:
            failed.append(f"{part.model}: {error}")
            drawing.warn(failed[-1])
        except (RuntimeError, ValueError, MemoryError, OSError) as error:
            failed.append(f"{part.model}: {explained(error)}")
            drawing.warn(failed[-1])
        job.previews = None
    job.done = 1.0
    if len(failed) == len(parts):
        drawing.warnings.clear()
        raise UserError(failed[0])


def _part(
    drawing: Drawing, number: int, part: Settings, model: Model, places: Mapping[str, Source],
    job: Job, share: tuple[float, float],
) -> None:  # fmt: skip
    """Draw the images that have the same settings."""
    wish, source = drawing.wish, places[part.model]
    choice = model.sampler(
        part.sampler, steps=part.steps, guidance=part.guidance, settings=part.sets
    )
    options = model.options(negative=part.negative or None)
    read = [*wish.prompts, *([part.negative] if part.negative else [])]
    for sentence in warnings_of(model.text_encoder, read, source.captions(2)):
        drawing.warn(f"{part.model}: {sentence}")
    total = len(wish.prompts) * wish.images
    images = 0
    with previews(model.generator) as seen:
        glimpse = _Glimpses(seen, job)

        def images_done(done: int, _: int) -> None:
            nonlocal images
            images = done
            step(0, 1)

        def step(done: int, steps: int) -> None:
            job.check()
            now = f", step {done} of {steps}" if steps > 1 else ""
            job.text = f"{part.model}: {images} of {total} images{now}"
            job.done = share[0] + share[1] * min(1, (images + done / steps) / total)
            glimpse(done < steps)

        step(0, 1)
        write_samples(
            model, wish.prompts, drawing.folder_of(number), n=wish.images, seed=part.seed,
            sampler=choice, options=options, run=Path(find(source.place).name),
            progress=images_done, steps=step,
        )  # fmt: skip


class _Glimpses:
    """Shows previews now and then, so that they take little of the time."""

    def __init__(self, seen: Previews, job: Job) -> None:
        self._seen, self._job = seen, job
        self._next = 0.0

    def __call__(self, due: bool) -> None:
        now = time.monotonic()
        if not due or now < self._next:
            return
        with suppress(RuntimeError, ValueError):  # what a network cannot decode is not shown
            self._job.previews = self._seen.images(PREVIEWED)
        taken = time.monotonic() - now
        self._next = now + taken + max(PAUSE, taken / SHARE)
