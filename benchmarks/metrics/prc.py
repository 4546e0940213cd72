"""Improved precision and recall (Kynkaanniemi et al. 2019, eq. 1): is a picture within a k-nearest-neighbour ball?"""

from __future__ import annotations

from types import MappingProxyType

import torch
from pydantic import Field
from torch import Tensor
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from t2i.benchmarks.metrics.common import FeaturesMetricConfig, need
from t2i.core.scoring import Intervals, Metric, Pictures, Scores, proportion_interval


class PrcConfig(FeaturesMetricConfig):
    """neighbourhood: k."""

    neighbourhood: int = Field(3, ge=1)


class Prc(Metric):
    """`precision`: generated pictures within the real ones' balls; `recall`: real ones within the generated ones'."""

    better = MappingProxyType({"precision": "higher", "recall": "higher"})
    reference, scope, captioned = True, "headline", False

    def __init__(self, config: PrcConfig) -> None:
        self.config = config
        self.features = config.features
        self._real: list[Tensor] = []
        self._ours: list[Tensor] = []
        self._scores: Scores = {}

    def update_reference(self, features: Tensor) -> None:
        self._real.append(features)

    def update(self, pictures: Pictures) -> None:
        self._ours.append(pictures.features[self.config.features])

    def compute(self) -> Scores:
        ours, real = torch.cat(self._ours), torch.cat(self._real)
        need("prc", min(len(ours), len(real)), self.config.neighbourhood + 1, "pictures")
        found = prc_features_to_metric(
            ours, real, prc_neighborhood=self.config.neighbourhood, save_cpu_ram=True, verbose=False
        )
        self._scores = {"precision": 100 * found[KEY_METRIC_PRECISION], "recall": 100 * found[KEY_METRIC_RECALL]}
        return self._scores

    def intervals(self) -> Intervals:
        counts = {"precision": sum(map(len, self._ours)), "recall": sum(map(len, self._real))}
        return {name: proportion_interval(self._scores[name] / 100 * of, of) for name, of in counts.items()}


def build(config: PrcConfig) -> Prc:
    """The metric "prc"."""
    return Prc(config)
