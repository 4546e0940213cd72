"""Improved precision and recall, by k-nearest-neighbour balls around the images of each set.

Source: Kynkaanniemi et al. 2019, eq. 1.
"""

from __future__ import annotations

from types import MappingProxyType

from pydantic import Field
from torch_fidelity.metric_prc import (
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    prc_features_to_metric,
)

from t2i.benchmarks.score.metrics.common import FeaturesMetricConfig, TwoSets
from t2i.core.interfaces.scoring import Intervals, Scores, proportion_interval

CHUNK = 2048  # rows of the distance matrix at once: 330 MB for 40,000 images in the other set


class PrcConfig(FeaturesMetricConfig):
    """Settings of the metric "prc"."""

    neighbourhood: int = Field(3, ge=1)
    """Number k of nearest neighbours: the ball around an image reaches to the k-th nearest in its
    own set."""


class Prc(TwoSets):
    """Precision and recall of generated images.

    Scores: `precision` is the percentage of generated images within a ball of a real one, `recall`
    that of real images within a ball of a generated one.

    Args:
        config: The settings.
    """

    better = MappingProxyType({"precision": "higher", "recall": "higher"})

    def __init__(self, config: PrcConfig) -> None:
        super().__init__(config)
        self.config = config
        self._scores: Scores = {}

    def compute(self) -> Scores:
        ours, real = self.both("prc", self.config.neighbourhood + 1)
        found = prc_features_to_metric(
            ours, real, prc_neighborhood=self.config.neighbourhood, prc_batch_size=CHUNK,
            save_cpu_ram=True, verbose=False,
        )  # fmt: skip
        self._scores = {
            "precision": 100 * found[KEY_METRIC_PRECISION],
            "recall": 100 * found[KEY_METRIC_RECALL],
        }
        return self._scores

    def intervals(self) -> Intervals:
        """Return the intervals over the images that are tested; the balls are fixed."""
        counts = {"precision": len(self._groups), "recall": sum(map(len, self._real))}
        return {
            name: proportion_interval(self._scores[name] / 100 * of, of)
            for name, of in counts.items()
        }


def build(config: PrcConfig) -> Prc:
    """Build the metric "prc".

    Args:
        config: The settings.

    Returns:
        The metric.
    """
    return Prc(config)
