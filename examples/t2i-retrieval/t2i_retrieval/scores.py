"""Scores: the features `colour-histogram`, the metric `distinct`, and the benchmark `stripes`."""

from __future__ import annotations

from hashlib import blake2b
from types import MappingProxyType

from torch import Tensor
from torch.nn import functional as F

from t2i.core.interfaces.scoring import (
    Benchmark,
    FeatureExtractor,
    ImageBatch,
    Measure,
    Metric,
    PromptSet,
)
from t2i_retrieval.config import Nothing

LEVELS = 4  # levels of each primary colour


class ColourHistogram(FeatureExtractor):
    """Histogram of colours: the share of pixels in each of 4 x 4 x 4 boxes of the colour cube."""

    name, weights_sha256, dim = "colour-histogram", "none", LEVELS**3

    def forward(self, images: Tensor) -> Tensor:
        """Compute the histograms.

        Args:
            images: The images, uint8 (B, 3, H, W).

        Returns:
            The shares, float32 (B, 64). Each row sums to 1.
        """
        red, green, blue = (images // (256 // LEVELS)).long().unbind(1)
        box = (red * LEVELS + green) * LEVELS + blue
        return F.one_hot(box.flatten(1), LEVELS**3).float().mean(1)


class Distinct(Metric):
    """The score `distinct`, the percentage of different images among all.

    A model that repeats an image, for the same caption or others, scores below 100.
    """

    better = MappingProxyType({"distinct": "higher"})
    scope, captioned = "headline", False

    def __init__(self) -> None:
        self._count = 0
        self._digests: set[bytes] = set()

    def update(self, images: ImageBatch) -> None:
        self._count += len(images.images)
        self._digests |= {blake2b(image.tobytes()).digest() for image in images.images}

    def compute(self) -> dict[str, float]:
        return {"distinct": 100 * len(self._digests) / self._count}


def histogram(config: Nothing) -> ColourHistogram:
    """Build the feature extractor `colour-histogram`.

    Args:
        config: The settings, of which there are none.

    Returns:
        The extractor.
    """
    return ColourHistogram()


def distinct(config: Nothing) -> Distinct:
    """Build the metric `distinct`.

    Args:
        config: The settings, of which there are none.

    Returns:
        The metric.
    """
    return Distinct()


def benchmark(config: Nothing, protocol: str) -> Benchmark:
    """Build the benchmark `stripes`.

    Args:
        config: The settings, of which there are none.
        protocol: Name of its only protocol.

    Returns:
        The benchmark.
    """
    return Benchmark(
        name="stripes",
        protocol=protocol,
        dataset="stripes",
        image_size=32,
        prompts=(
            PromptSet(
                "stripes",
                "val",
                128,
                headline=True,
                about="Both colours, direction and width are said.",
            ),
        ),
        measures=(
            Measure("fid", {"features": "colour-histogram"}, shown={"fid": "FID"}),
            Measure("distinct", shown={"distinct": "distinct %"}),
            Measure("diversity", {"features": "pixels"}, shown={"diversity": "diversity %"}),
        ),
        headline=("fid", "fid"),
        default_models=(("retrieval", "dfgan"), ("retrieval",)),
        minutes=1.0,
        reference=500,
    )
