"""Measure how fast a data set is read.

    python -m t2i.benchmarks.speed.data_loading --data coco --data-dir DIR --image-size 64

The training loader reads whole batches in the order of training, and nothing is trained. It reads
from the files, then, if the data set has one, from the cache of resized images. Besides the rate,
the processor time of an image is printed, over all processes; a busy machine distorts it less.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.core.engine.loader import BatchShard, Loader, Views, batch_visits
from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import Dataset
from t2i.core.io.terminal import note
from t2i.core.registry.choice import Choice
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset
from t2i.core.settings import DataConfig
from t2i.core.settings.model import Augment

BATCH = 64


@dataclass(frozen=True)
class Rate:
    """The speed of reading images.

    Args:
        images: Number of images read.
        seconds: Time that it took.
        processor: Processor seconds per image, over all processes.
    """

    images: int
    seconds: float
    processor: float

    def __str__(self) -> str:
        rate = self.images / self.seconds
        return f"{rate:,.0f} images/s, {1000 * self.processor:.2f} ms of processor time an image"


def measure(dataset: Dataset, images: int, workers: int) -> Rate:
    """Read images as training does, and measure the time.

    Args:
        dataset: The data set.
        images: Number of images to read, rounded down to whole batches; at least one batch is read.
        workers: Number of loader processes. 0: a thread of this process.

    Returns:
        The speed.
    """
    views = Views(dataset, 0, dataset.image_size, Augment())
    batches = max(1, images // BATCH)
    began, spent = time.perf_counter(), _processor()
    loader = Loader(views, batch_visits(dataset, 0, BatchShard(BATCH), 0), workers)
    try:
        for _ in range(batches):
            next(loader)
        seconds = time.perf_counter() - began
    finally:
        loader.close()
    # The processor time includes batches that were made ahead but not read.
    return Rate(batches * BATCH, seconds, (_processor() - spent) / (batches * BATCH))


def _processor() -> float:
    """Return the processor seconds of this process and of its processes that have ended."""
    return sum(os.times()[:4])


def _choice(data: str, settings: dict[str, Any]) -> Choice[DataConfig]:
    choice: Choice[DataConfig] = registry().datasets.choose(data, settings, "data set")
    return choice


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a data set and print the speeds.

    Args:
        arguments: The command's arguments. None: those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m t2i.benchmarks.speed.data_loading", description=__doc__
    )
    parser.add_argument("--data", required=True, help="data set")
    parser.add_argument("--data-dir", type=Path, help="its folder")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--images", type=int, default=2048, help="images read each time")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 2], help="numbers of loader processes"
    )
    given = parser.parse_args(arguments)
    place = {} if given.data_dir is None else {"dir": str(given.data_dir)}
    settings = {**place, "image_size": given.image_size}
    sets = {"from the files": open_dataset(_choice(given.data, settings))}
    try:
        sets["from the cache"] = open_dataset(_choice(given.data, {**settings, "cache": True}))
    except UserError as error:
        note(f"no cache: {error}")
    for where, dataset in sets.items():
        dataset.prepare(note)
        for workers in given.workers:
            print(f"{where}, {workers} workers: {measure(dataset, given.images, workers)}")


if __name__ == "__main__":
    main()
