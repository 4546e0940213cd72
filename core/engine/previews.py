"""Write grids of samples during training, always with the same captions and the same noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from t2i.core.engine.batches import GALLERY, BatchMaker
from t2i.core.engine.context import RunContext
from t2i.core.engine.ema import Ema
from t2i.core.engine.loader import BatchShard, Views
from t2i.core.engine.observing import as_sampled
from t2i.core.engine.preparing import PreparedStage
from t2i.core.interfaces.dataset import BrokenExample, Dataset, Example, Visit, sound
from t2i.core.interfaces.trainer import Batch, Trainer
from t2i.core.io.files import write_bytes, write_json
from t2i.core.io.images import grid, png, readable_scale, to_bytes
from t2i.core.models.model import Model

CAPTIONS = 8
PER_CAPTION = 2

FIRST = 10.0
"""Seconds of a stage after which its first grid is due: a new user should soon see something."""

SHARE = 0.03
"""Largest share of the time that grids by the clock may take."""

PARTS = 20
"""Two grids by the clock are at least this part of the stage's time apart, so that a run of days
does not make thousands of them."""


class GridClock:
    """Says when a grid is due by the clock.

    Args:
        every: Seconds between two grids. None: never.
        clock: Returns the time in seconds.
    """

    def __init__(self, every: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._clock = every, clock
        self._cost: float | None = None
        self.begin()

    def begin(self) -> None:
        """Start the clock: the stage begins now, or goes on."""
        self._began = self._last = self._clock()

    def due(self) -> bool:
        """Return whether a grid is due.

        Returns:
            True if so.
        """
        if self._every is None:
            return False
        now = self._clock()
        if self._cost is None:
            return now - self._began >= min(FIRST, self._every)
        wait = max(self._every, self._cost / SHARE, (now - self._began) / PARTS)
        return now - self._last >= wait

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Note that a grid is written within the block, and how long that takes.

        Yields:
            Nothing.
        """
        began = self._clock()
        yield
        self._last = self._clock()
        self._cost = self._last - began


def _sound_ones(dataset: Dataset) -> Iterator[Example]:
    for index in range(len(dataset)):
        with suppress(BrokenExample):
            yield dataset[index]


class Gallery:
    """Writes a run's grids of images into a folder.

    Args:
        folder: Where the grids go.
        examples: The examples whose first captions are sampled.
        seed: Seed of the samples' noise.

    Attributes:
        examples: The examples.
        captions: The first caption of each.
    """

    def __init__(self, folder: Path, examples: Sequence[Example], seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self.examples = examples
        self.captions = [example.captions[0] for example in examples]

    @classmethod
    def of(cls, folder: Path, dataset: Dataset, seed: int) -> Gallery:
        """Make a gallery of the first sound examples of a data set.

        Any number of broken examples before them is skipped, whatever `max_broken` is: training
        does not need these examples.

        Args:
            folder: Where the grids go.
            dataset: The data set, preferably a split that is not trained on.
            seed: Seed of the samples' noise.

        Returns:
            A gallery of at most `CAPTIONS` examples.

        Raises:
            UserError: No example is sound.
        """
        examples = list(islice(_sound_ones(dataset), CAPTIONS))
        return cls(
            folder, examples or [sound(dataset, 0)[0]], seed
        )  # if none is sound, sound() raises an error that says why

    def draw(
        self, name: str, model: Model, trainer: Trainer, batch: Callable[[], Batch]
    ) -> Path | None:
        """Write FOLDER/NAME.png: the trainer's preview, else samples of each caption.

        The samples of one caption, `PER_CAPTION` of them, lie side by side. captions.json, written
        with the first grid, lists the captions.

        Args:
            name: Name of the file, without ".png".
            model: The model, in evaluation mode.
            trainer: The trainer of the stage, which may have a preview of its own.
            batch: Makes the batch that the trainer previews.

        Returns:
            The file. None if nothing was written: the model samples no images (it is a guide, or
            the part of a cascade that is trained is a prior), and the trainer has no preview.
        """
        with torch.no_grad():
            preview = trainer.preview(batch())
            if preview is None:
                shown = model.up_to(trainer.shows) if trainer.shows else model
                if shown is None or not shown.draws:
                    return None
                images = self._samples(shown)
            else:
                images = to_bytes(preview)
        path = self._folder / f"{name}.png"
        sheet = grid(images, columns=2 * PER_CAPTION, scale=readable_scale(images.shape[1]))
        write_bytes(path, png(sheet))
        listing = self._folder / "captions.json"
        if not listing.exists():
            write_json(
                listing,
                {"captions": self.captions, "samples_of_each": PER_CAPTION, "seed": self._seed},
            )
        return path

    def _samples(self, model: Model) -> np.ndarray:
        batches = model.stream(self.captions, n=PER_CAPTION, seed=self._seed)
        return np.stack([drawn.image for batch in batches for drawn in batch])


class StagePreviews:
    """Writes the grids of a stage.

    Args:
        context: The run.
        gallery: The examples and the folder.
        prepared: The stage's networks.
        ema: The averaged weights, which are used.
        maker: Makes the batch for the trainer's preview.
    """

    def __init__(
        self,
        context: RunContext,
        gallery: Gallery,
        prepared: PreparedStage,
        ema: Ema,
        maker: BatchMaker,
    ) -> None:
        self._context, self._gallery = context, gallery
        self._prepared, self._ema, self._maker = prepared, ema, maker

    def draw(self) -> None:
        """Write a grid in the first process, with the averaged weights; the others wait.

        A signal cuts the sampling short. Training does not depend on grids (`as_sampled`).
        """
        if self._context.is_first or self._prepared.sharding:
            with as_sampled(self._prepared, self._ema):
                if self._context.is_first:
                    self._context.stop.optional(self._draw)
        self._context.accelerator.wait_for_everyone()

    def _draw(self) -> None:
        name = f"step-{self._context.state.step}"
        path = self._gallery.draw(name, self._context.model, self._prepared.trainer, self._batch)
        if path is not None:
            self._context.reporter.say(f"images: {path}")

    def _batch(self) -> Batch:
        """Make a batch of the gallery's examples with the captions of the grid, always the same."""
        gallery, settings = self._gallery, self._context.settings
        views = Views(gallery.examples, 0, settings.image_size, settings.augment)
        host = views[[Visit(0, index) for index in range(len(gallery.examples))]]
        shard = BatchShard(len(gallery.examples))
        return self._maker.make(replace(host, captions=tuple(gallery.captions)), GALLERY, shard)
