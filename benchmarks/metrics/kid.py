"""Kernel distance (Binkowski et al. 2018): the unbiased squared MMD under k(x, y) = (x.y / D + 1)^3, over subsets."""

from __future__ import annotations

from types import MappingProxyType

import torch
from pydantic import Field
from torch import Tensor
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from t2i.benchmarks.metrics.common import FeaturesMetricConfig, need
from t2i.core.scoring import Metric, Pictures, Scores


class KidConfig(FeaturesMetricConfig):
    """subsets: how many are drawn. subset_size: pictures in each; all there are, where there are fewer."""

    subsets: int = Field(100, ge=1)
    subset_size: int = Field(1000, ge=2)


class Kid(Metric):
    """`kid`: mean over the subsets; `kid_std`: their standard deviation, as torch-fidelity prints both."""

    better = MappingProxyType({"kid": "lower", "kid_std": "none"})
    reference, scope, captioned = True, "headline", False

    def __init__(self, config: KidConfig) -> None:
        self.config = config
        self.features = config.features
        self._real: list[Tensor] = []
        self._ours: list[Tensor] = []

    def update_reference(self, features: Tensor) -> None:
        self._real.append(features)

    def update(self, pictures: Pictures) -> None:
        self._ours.append(pictures.features[self.config.features])

    def compute(self) -> Scores:
        ours, real = torch.cat(self._ours), torch.cat(self._real)
        need("kid", min(len(ours), len(real)), 2, "pictures")
        size = min(self.config.subset_size, len(ours), len(real))
        found = kid_features_to_metric(
            ours, real, kid_subsets=self.config.subsets, kid_subset_size=size, verbose=False
        )  # fmt: skip
        return {"kid": found[KEY_METRIC_KID_MEAN], "kid_std": found[KEY_METRIC_KID_STD]}


def build(config: KidConfig) -> Kid:
    """The metric "kid"."""
    return Kid(config)
