"""Measure what scoring costs besides feature extraction.

    python -m t2i.benchmarks.speed.scoring_cost [--weights FILE]

The costs are processor seconds, so other work on the machine is not counted. A few images go
through Inception; FID, KID and IS, with their intervals, are computed from as many features as a
benchmark has. The features are random, as neither their values nor those of the weights matter to
the cost.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from t2i.benchmarks.score.extraction import BATCH, Extractors
from t2i.benchmarks.score.scorer import build_metric
from t2i.core.interfaces.scoring import ImageBatch, Measure, Metric

POOL, CLASSES = "inception/pool", "inception/logits"
MEASURES = (Measure("fid", {"features": POOL}), Measure("kid", {"features": POOL}), Measure("isc"))
SIDE = 256
ROWS = 4  # rows of a table: real images and three models, which share the reference


@dataclass(frozen=True)
class Cost:
    """The cost of scoring, in processor seconds.

    Args:
        images: Number of images in each row, and of real images.
        image: Seconds of feature extraction, for one image.
        row: Seconds to compute the scores of one row, by measure.
        reference: Seconds of computations on the real images that are done once for all rows.
    """

    images: int
    image: float
    row: dict[str, float]
    reference: float

    @property
    def share(self) -> float:
        """Time of scoring `ROWS` rows, as a fraction of extraction for these and real images."""
        scoring = ROWS * sum(self.row.values()) + self.reference
        return scoring / ((ROWS + 1) * self.images * self.image)


def measure(images: int, extracted: int = 2 * BATCH, weights: str | None = None) -> Cost:
    """Measure the cost of scoring.

    Args:
        images: Number of images in each row, and of real images.
        extracted: Number of images that go through Inception.
        weights: File of Inception's weights. None: the file that `t2i fetch inception` fetched.

    Returns:
        The cost.

    Raises:
        UserError: There are no weights.
    """
    image = _extraction(extracted, {"weights": weights} if weights else {})
    real, ours = (_features(seed, images) for seed in (0, 1))
    row: dict[str, float] = {}
    reference = 0.0
    for asked in MEASURES:
        first, metric = _score(asked, real, ours, None)
        row[asked.name] = _score(asked, real, ours, metric)[0] if asked.metric == "fid" else first
        reference += first - row[asked.name]  # other metrics compute nothing that can be shared
    return Cost(images, image, row, reference)


def _extraction(count: int, settings: dict[str, str]) -> float:
    """Return the seconds that the extraction of an image's features takes."""
    extractors = Extractors([POOL, CLASSES], "cpu", {"inception": settings})
    images = np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE, 3)).astype(np.uint8)
    extractors(images[:2], [POOL])  # warm up
    parts = np.array_split(
        images.repeat(math.ceil(count / BATCH), 0)[:count], math.ceil(count / BATCH)
    )
    return _seconds(lambda: [extractors(part, [POOL, CLASSES]) for part in parts]) / count


def _features(seed: int, count: int) -> dict[str, Tensor]:
    """Make random features that are not negative and correlated, as Inception's are."""
    stream = torch.Generator().manual_seed(seed)
    mix = torch.randn(256, 2048, generator=stream) / 16
    pool = [
        (
            torch.randn(len(part), 256, generator=stream) @ mix
            + torch.randn(len(part), 2048, generator=stream)
        ).relu()
        for part in torch.split(torch.zeros(count), 1024)
    ]
    return {POOL: torch.cat(pool), CLASSES: torch.randn(count, 1008, generator=stream)}


def _score(
    measure: Measure, real: dict[str, Tensor], ours: dict[str, Tensor], first: Metric | None
) -> tuple[float, Metric]:
    """Compute a row's score, with the reference of `first` if there is one; return the seconds."""
    metric = build_metric(measure)

    def run() -> None:
        if metric.reference and not (first and metric.share_reference(first)):
            for features in torch.split(real[POOL], 1024):
                metric.update_reference(features)
        for images in _stream(ours):
            metric.update(images)
        metric.compute()
        metric.intervals()

    return _seconds(run), metric


def _stream(features: dict[str, Tensor]) -> Iterator[ImageBatch]:
    count = len(features[POOL])
    for start in range(0, count, BATCH):
        rows = range(start, min(start + BATCH, count))
        part = {name: tensor[start : start + BATCH] for name, tensor in features.items()}
        yield ImageBatch(np.zeros((0, 0, 0, 3), np.uint8), ("",) * len(rows), tuple(rows), part)


def _seconds(work: Callable[[], object]) -> float:
    """Return the processor seconds that a function takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the costs and print them.

    Args:
        arguments: The command's arguments. None: those of the process.
    """
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--images", type=int, default=30_000, help="images in each row, and real ones"
    )
    parser.add_argument(
        "--extracted", type=int, default=2 * BATCH, help="images that go through the network"
    )
    parser.add_argument(
        "--weights", help="file of Inception's weights; any of the right format will do"
    )
    asked = parser.parse_args(arguments)
    cost = measure(asked.images, asked.extracted, asked.weights)
    print(
        f"extraction     {cost.image:.4f} s an image, "
        f"{cost.image * cost.images:.0f} s for {cost.images}"
    )
    for name, seconds in cost.row.items():
        print(f"{name:14} {seconds:.1f} s a row")
    print(f"reference      {cost.reference:.1f} s, once")
    print(f"scoring adds   {100 * cost.share:.2f} % to extraction ({ROWS} rows and the reference)")


if __name__ == "__main__":
    main()
