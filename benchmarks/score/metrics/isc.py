"""Inception score (Salimans et al. 2016; thesis 3.2): exp(E KL(p(y|x) || p(y))), as torch-fidelity computes it."""

from __future__ import annotations

from types import MappingProxyType

from pydantic import Field
from torch_fidelity.metric_isc import (
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_ISC_STD,
    isc_features_to_metric,
)

from t2i.benchmarks.score.metrics.common import SEED, Collected, FeaturesMetricConfig, around
from t2i.core.interfaces.scoring import Intervals, Scores


class IscConfig(FeaturesMetricConfig):
    """features: class logits. splits: parts of which each gets a score of its own."""

    features: str = Field("inception/logits", min_length=1)
    splits: int = Field(10, ge=2)


class Isc(Collected):
    """`isc`: mean over the splits; `isc_std`: their standard deviation, as torch-fidelity prints both. It knows neither
    real images nor captions, and a model that draws one perfect image of each class gets the best there is."""

    better = MappingProxyType({"isc": "higher", "isc_std": "none"})

    def __init__(self, config: IscConfig) -> None:
        super().__init__(config)
        self.config = config
        self._scores: Scores = {}

    def compute(self) -> Scores:
        logits = self.ours("isc", 2 * self.config.splits)
        found = isc_features_to_metric(logits, self.config.splits, shuffle=True, rng_seed=SEED)
        self._scores = {"isc": found[KEY_METRIC_ISC_MEAN], "isc_std": found[KEY_METRIC_ISC_STD]}
        return self._scores

    def intervals(self) -> Intervals:
        return {"isc": around(self._scores["isc"], self._scores["isc_std"], self.config.splits)}


def build(config: IscConfig) -> Isc:
    """The metric "isc"."""
    return Isc(config)
