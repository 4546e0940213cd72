"""Write grids of samples during training, always with the same captions and the same noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from t2i.core.engine.batches import GALLERY, BatchMaker
from t2i.core.engine.context import Plan, RunContext
from t2i.core.engine.ema import Ema
from t2i.core.engine.loader import BatchShard, Views
from t2i.core.engine.observing import as_sampled
from t2i.core.engine.preparing import PreparedStage
from t2i.core.interfaces.broken import sound
from t2i.core.interfaces.dataset import BrokenExample, Dataset, Example
from t2i.core.interfaces.trainer import Batch, Trainer
from t2i.core.interfaces.visits import Visit
from t2i.core.io.files import write_bytes
from t2i.core.io.images import png, to_bytes
from t2i.core.io.json_files import write_json
from t2i.core.io.sheets import Block, Layout, sheet
from t2i.core.models.model import Model

CAPTIONS = 8
PER_CAPTION = 2
COLUMNS = 2
"""Captions side by side on a grid."""

SAMPLED = f"Of each caption: a real image, then {PER_CAPTION} samples."


def sound_ones(dataset: Dataset) -> Iterator[Example]:
    """Read the sound examples of a data set; any number of broken ones is skipped.

    Args:
        dataset: The data set.

    Yields:
        The sound examples, in order.
    """
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
        examples = list(islice(sound_ones(dataset), CAPTIONS))
        return cls(
            folder, examples or [sound(dataset, 0)[0]], seed
        )  # if none is sound, sound() raises an error that says why

    def draw(
        self, name: str, title: str, model: Model, trainer: Trainer, batch: Callable[[], Batch]
    ) -> Path | None:
        """Write FOLDER/NAME.png: the trainer's preview, else samples of each caption.

        A real image of a caption and its samples, `PER_CAPTION` of them, lie side by side above the
        caption. captions.json, written with the first grid, lists the captions.

        Args:
            name: Name of the file, without ".png".
            title: Title of the grid.
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
                images, about = self._samples(shown), SAMPLED
            else:
                images, about = to_bytes(preview), trainer.previews
        path = self._folder / f"{name}.png"
        blocks = self._blocks(images, with_real=preview is None)
        across = max(len(block.images) for block in blocks)
        write_bytes(path, png(sheet(blocks, Layout(COLUMNS, across, title, about))))
        listing = self._folder / "captions.json"
        if not listing.exists():
            write_json(
                listing,
                {"captions": self.captions, "samples_of_each": PER_CAPTION, "seed": self._seed},
            )
        return path

    def _blocks(self, images: np.ndarray, with_real: bool) -> list[Block]:
        """Divide images, as many of each caption, among the captions.

        A preview with another number of images has no captions.
        """
        each, rest = divmod(len(images), len(self.captions))
        if rest or not each:
            return [Block([image]) for image in images]
        return [
            Block([*([example.image] if with_real else []), *images[at * each :][:each]], caption)
            for at, (example, caption) in enumerate(zip(self.examples, self.captions, strict=True))
        ]

    def _samples(self, model: Model) -> np.ndarray:
        batches = model.stream(self.captions, n=PER_CAPTION, seed=self._seed)
        return np.stack([drawn.image for batch in batches for drawn in batch])


class StagePreviews:
    """Writes the grids of a stage.

    Args:
        context: The run.
        plan: The stage.
        gallery: The examples and the folder.
        prepared: The stage's networks.
        ema: The averaged weights, which are used.
        maker: Makes the batch for the trainer's preview.
    """

    def __init__(
        self,
        context: RunContext,
        plan: Plan,
        gallery: Gallery,
        prepared: PreparedStage,
        ema: Ema,
        maker: BatchMaker,
    ) -> None:
        self._context, self._plan, self._gallery = context, plan, gallery
        self._prepared, self._ema, self._maker = prepared, ema, maker

    @cached_property
    def show_all(self) -> bool:
        """Whether the stage's grids show samples of the whole model, so that it can be scored."""
        trainer, model = self._prepared.trainer, self._context.model
        shown = model.up_to(trainer.shows) if trainer.shows else model
        if shown is not model or not model.draws:
            return False
        with as_sampled(self._prepared, self._ema), torch.no_grad():
            return trainer.preview(self._batch()) is None

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
        context, step = self._context, self._context.state.step
        stages = f"stage {self._plan.index + 1} of {len(context.plans)}"
        title = f"{self._plan.stage.name}, {stages}, step {step}"
        trainer = self._prepared.trainer
        path = self._gallery.draw(f"step-{step}", title, context.model, trainer, self._batch)
        if path is not None:
            context.reporter.say(f"images: {path}")
            context.trackers.grid(path, step)

    def _batch(self) -> Batch:
        """Make a batch of the gallery's examples with the captions of the grid, always the same."""
        gallery, settings = self._gallery, self._context.settings
        views = Views(gallery.examples, 0, settings.image_size, settings.augment)
        host = views[[Visit(0, index) for index in range(len(gallery.examples))]]
        shard = BatchShard(len(gallery.examples))
        return self._maker.make(replace(host, captions=tuple(gallery.captions)), GALLERY, shard)
