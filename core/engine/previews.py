"""Sample grids: the same captions and the same noise each time, so that progress can be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from t2i.core.engine.batches import GALLERY, BatchMaker
from t2i.core.engine.context import RunContext
from t2i.core.engine.ema import Ema
from t2i.core.engine.loader import BatchShard, Views
from t2i.core.engine.preparing import PreparedStage
from t2i.core.interfaces.dataset import BrokenExample, Dataset, Example, Visit, sound
from t2i.core.interfaces.trainer import Batch, Trainer
from t2i.core.io.files import write_bytes, write_json
from t2i.core.io.images import grid, png, readable_scale, to_bytes
from t2i.core.models.model import Model

CAPTIONS = 8
PER_CAPTION = 2


def _sound_ones(dataset: Dataset) -> Iterator[Example]:
    for index in range(len(dataset)):
        with suppress(BrokenExample):
            yield dataset[index]


class Gallery:
    """Draws a run's grids into a folder. examples: whose captions are drawn."""

    def __init__(self, folder: Path, examples: Sequence[Example], seed: int) -> None:
        self._folder = folder
        self._seed = seed
        self.examples = examples
        self.captions = [example.captions[0] for example in examples]

    @classmethod
    def of(cls, folder: Path, dataset: Dataset, seed: int) -> Gallery:
        """The captions of the first examples that are sound. However many are not, training does without them."""
        examples = list(islice(_sound_ones(dataset), CAPTIONS))
        return cls(
            folder, examples or [sound(dataset, 0)[0]], seed
        )  # the latter says what is wrong

    def draw(
        self, name: str, model: Model, trainer: Trainer, batch: Callable[[], Batch]
    ) -> Path | None:
        """Writes NAME.png: what the trainer previews, else two samples of each caption, side by side. Of a model that
        draws no images there is nothing to write without a preview."""
        with torch.no_grad():
            preview = trainer.preview(batch())
            if preview is None and not model.draws:
                return None
            images = to_bytes(preview) if preview is not None else self._samples(model)
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
    """Draws a stage's grids."""

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
        """A grid, drawn by the first process with the averaged weights. A signal cuts the drawing short.

        Drawing is keyed, but a library beneath may draw random numbers of its own: training must not notice.
        """
        if self._context.is_first:
            self._prepared.eval_mode()
            with self._ema.swapped(), torch.random.fork_rng():
                self._context.stop.optional(self._draw)
            self._prepared.train_mode()
        self._context.accelerator.wait_for_everyone()

    def _draw(self) -> None:
        name = f"step-{self._context.state.step}"
        path = self._gallery.draw(name, self._context.model, self._prepared.trainer, self._batch)
        if path is not None:
            self._context.reporter.say(f"images: {path}")

    def _batch(self) -> Batch:
        """The gallery's examples as a batch, the same each time, with the captions of the grid."""
        gallery, settings = self._gallery, self._context.settings
        views = Views(gallery.examples, 0, settings.image_size, settings.augment)
        host = views[[Visit(0, index) for index in range(len(gallery.examples))]]
        shard = BatchShard(len(gallery.examples))
        return self._maker.make(replace(host, captions=tuple(gallery.captions)), GALLERY, shard)
