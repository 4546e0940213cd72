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

LEVELS = 4  # of each primary colour


class ColourHistogram(FeatureExtractor):
    """Shares of the image's pixels in each of 4 x 4 x 4 boxes of the colour cube: sums to 1."""

    name, weights_sha256, dim = "colour-histogram", "none", LEVELS**3

    def forward(self, images: Tensor) -> Tensor:
        red, green, blue = (images // (256 // LEVELS)).long().unbind(1)
        box = (red * LEVELS + green) * LEVELS + blue
        return F.one_hot(box.flatten(1), LEVELS**3).float().mean(1)


class Distinct(Metric):
    """`distinct`: a model that repeats images, for other captions or the same, scores below 100."""

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
    return ColourHistogram()


def distinct(config: Nothing) -> Distinct:
    return Distinct()


def benchmark(config: Nothing, protocol: str) -> Benchmark:
    """The benchmark "stripes", under its one protocol."""
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
