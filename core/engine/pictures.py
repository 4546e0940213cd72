"""Sample grids: the same captions and the same noise each time, so that progress can be seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from t2i.core.interfaces.dataset import BrokenExample, Dataset, Example, sound
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
        return cls(folder, examples or [sound(dataset, 0)[0]], seed)  # the latter says what is wrong

    def draw(self, name: str, model: Model, trainer: Trainer | None, batch: Callable[[], Batch]) -> Path | None:
        """Writes NAME.png: what the trainer previews, else two samples of each caption, side by side. Of a model that
        draws no images there is nothing to write without a preview."""
        with torch.no_grad():
            preview = trainer.preview(batch()) if trainer else None
            if preview is None and not model.draws:
                return None
            images = to_bytes(preview) if preview is not None else self._samples(model)
        path = self._folder / f"{name}.png"
        sheet = grid(images, columns=2 * PER_CAPTION, scale=readable_scale(images.shape[1]))
        write_bytes(path, png(sheet))
        listing = self._folder / "captions.json"
        if not listing.exists():
            write_json(listing, {"captions": self.captions, "samples_of_each": PER_CAPTION, "seed": self._seed})
        return path

    def _samples(self, model: Model) -> np.ndarray:
        batches = model.draw(self.captions, n=PER_CAPTION, seed=self._seed)
        return np.stack([drawn.image for batch in batches for drawn in batch])
