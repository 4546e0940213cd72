"""Frechet distance (Heusel et al. 2017; thesis 3.1): ||mu1 - mu2||^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2))."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

from t2i.benchmarks.metrics.common import FeaturesMetricConfig, Moments, need
from t2i.core.scoring import Intervals, Metric, Pictures, Scores


class FidConfig(FeaturesMetricConfig):
    """bootstrap: resamplings of the generated pictures for the confidence interval (0: none)."""

    bootstrap: int = Field(0, ge=0)


class Fid(Metric):
    """Streams: only sums are kept, unless a bootstrap asks for the features."""

    better = MappingProxyType({"fid": "lower"})
    reference, scope, captioned = True, "headline", False

    def __init__(self, config: FidConfig) -> None:
        self.config = config
        self.features = config.features
        self._real, self._ours = Moments(), Moments()
        self._kept: list[Tensor] = []
        self._fid = 0.0

    def update_reference(self, features: Tensor) -> None:
        self._real.add(features)

    def update(self, pictures: Pictures) -> None:
        features = pictures.features[self.config.features]
        self._ours.add(features)
        if self.config.bootstrap:
            self._kept.append(features)

    def compute(self) -> Scores:
        need("fid", self._ours.count, 2, "pictures")
        need("fid", self._real.count, 2, "real pictures")
        self._fid = self._distance(self._ours)
        return {"fid": self._fid}

    def _distance(self, ours: Moments) -> float:
        return float(fid_statistics_to_metric(ours.statistics(), self._real.statistics(), False)[KEY_METRIC_FID])

    def intervals(self) -> Intervals:
        """The spread over bootstrap samples, laid around the score itself: repeated pictures bias a resampled FID
        upwards, so its percentiles would not even hold the score."""
        if not self.config.bootstrap:
            return {}
        features, stream = torch.cat(self._kept), np.random.default_rng(0)
        distances = []
        for _ in range(self.config.bootstrap):
            sample = Moments()
            sample.add(features[torch.from_numpy(stream.integers(len(features), size=len(features)))])
            distances.append(self._distance(sample))
        half = 1.96 * float(np.std(distances))
        return {"fid": (max(0.0, self._fid - half), self._fid + half)}


def build(config: FidConfig) -> Fid:
    """The metric "fid"."""
    return Fid(config)
