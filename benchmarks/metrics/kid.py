"""Kernel distance (Binkowski et al. 2018): the unbiased squared MMD under k(x, y) = (x.y / D + 1)^3, over subsets."""

from __future__ import annotations

from types import MappingProxyType

from pydantic import Field
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from t2i.benchmarks.metrics.common import FeaturesMetricConfig, TwoSets
from t2i.core.scoring import Scores


class KidConfig(FeaturesMetricConfig):
    """subsets: how many are drawn. subset_size: pictures in each; all there are, where there are fewer."""

    subsets: int = Field(100, ge=1)
    subset_size: int = Field(1000, ge=2)


class Kid(TwoSets):
    """`kid`: mean over the subsets; `kid_std`: their standard deviation, as torch-fidelity prints both."""

    better = MappingProxyType({"kid": "lower", "kid_std": "none"})

    def __init__(self, config: KidConfig) -> None:
        super().__init__(config)
        self.config = config

    def compute(self) -> Scores:
        ours, real = self.both("kid", 2)
        size = min(self.config.subset_size, len(ours), len(real))
        found = kid_features_to_metric(
            ours, real, kid_subsets=self.config.subsets, kid_subset_size=size, verbose=False
        )  # fmt: skip
        return {"kid": found[KEY_METRIC_KID_MEAN], "kid_std": found[KEY_METRIC_KID_STD]}


def build(config: KidConfig) -> Kid:
    """The metric "kid"."""
    return Kid(config)
