"""The metric `caption-accuracy`: how well images show what their captions say."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from t2i.core.interfaces.scoring import ImageBatch, Intervals, Metric, proportion_interval
from t2i.plugins.datasets.shapes import reader
from t2i.plugins.datasets.shapes.config import CaptionAccuracyConfig
from t2i.plugins.datasets.shapes.scoring import SCORES, Tally, score_batch

READER_VERSION = 1  # to be raised whenever the same image may be read differently


def caption_accuracy(images: NDArray[np.generic], captions: Sequence[str]) -> dict[str, float]:
    """Compute the percentages of images that show what their captions claim.

    Args:
        images: N images, uint8 (N, H, W, 3), or float in [-1, 1]; H = W.
        captions: Their N captions.

    Returns:
        Percentages by name: "all" (everything is right, no object is missing and none too many),
        "shape", "colour", "size", "position", "relation", "count" and "background", each over the
        captions that claim it; and the same by kind of caption: "one.all", "two.relation",
        "count.count", ...

    Raises:
        UserError: A caption is not one of the data set's grammar.
        ValueError: There are not as many captions as images, or the images have another format.
    """
    tally = Tally()
    tally.add(score_batch(images, captions), captions)
    return tally.summary()


class CaptionAccuracy(Metric):
    """The metric: `caption_accuracy` over a stream of images."""

    better = MappingProxyType(dict.fromkeys(SCORES, "higher"))
    titles = MappingProxyType({"all": "all right %"})

    def __init__(self) -> None:
        self._tally = Tally()

    def update(self, images: ImageBatch) -> None:
        self._tally.add(score_batch(images.images, images.captions), images.captions)

    def compute(self) -> dict[str, float]:
        return self._tally.summary()

    def intervals(self) -> Intervals:
        return {key: proportion_interval(*counts) for key, counts in self._tally.counts().items()}

    def protocol(self) -> dict[str, Any]:
        return {
            "reader": READER_VERSION,
            "max_misfit": reader.MAX_MISFIT,
            "max_softness": reader.SOFTNESS[-1],
        }


def build(config: CaptionAccuracyConfig) -> CaptionAccuracy:
    """Build the metric `caption-accuracy`.

    Args:
        config: Ignored; there are no settings.

    Returns:
        The metric.
    """
    return CaptionAccuracy()
