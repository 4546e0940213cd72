"""Improved precision and recall (Kynkaanniemi et al. 2019, eq. 1): is an image within a k-nearest-neighbour ball?"""

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

CHUNK = 2048  # rows of distances at once: 330 MB against 40,000 images


class PrcConfig(FeaturesMetricConfig):
    """neighbourhood: k."""

    neighbourhood: int = Field(3, ge=1)


class Prc(TwoSets):
    """`precision`: generated images within the real ones' balls; `recall`: real ones within the generated ones'."""

    better = MappingProxyType({"precision": "higher", "recall": "higher"})

    def __init__(self, config: PrcConfig) -> None:
        super().__init__(config)
        self.config = config
        self._scores: Scores = {}

    def compute(self) -> Scores:
        ours, real = self.both("prc", self.config.neighbourhood + 1)
        found = prc_features_to_metric(
            ours, real, prc_neighborhood=self.config.neighbourhood, prc_batch_size=CHUNK, save_cpu_ram=True,
            verbose=False,
        )  # fmt: skip
        self._scores = {
            "precision": 100 * found[KEY_METRIC_PRECISION],
            "recall": 100 * found[KEY_METRIC_RECALL],
        }
        return self._scores

    def intervals(self) -> Intervals:
        """Of the images looked up, the balls being taken as they are."""
        counts = {"precision": len(self._groups), "recall": sum(map(len, self._real))}
        return {
            name: proportion_interval(self._scores[name] / 100 * of, of)
            for name, of in counts.items()
        }


def build(config: PrcConfig) -> Prc:
    """The metric "prc"."""
    return Prc(config)
