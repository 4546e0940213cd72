"""Inception score: exp(E KL(p(y|x) || p(y))), as torch-fidelity computes it.

Source: Salimans et al. 2016; thesis 3.2.
"""

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
    """Settings of the metric "isc"."""

    features: str = Field("inception/logits", min_length=1)
    """Registry name of the features, which must be logits of classes."""
    splits: int = Field(10, ge=2)
    """Number of parts that the images are split into. Each part gets a score, and these are
    averaged."""


class Isc(Collected):
    """Inception score.

    Scores: `isc` is the mean over the splits, `isc_std` their standard deviation, as torch-fidelity
    prints them. Neither uses real images or captions: a model that makes one perfect image of each
    class gets the best score.

    Args:
        config: The settings.
    """

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
    """Build the metric "isc".

    Args:
        config: The settings.

    Returns:
        The metric.
    """
    return Isc(config)
