"""Kernel distance: the unbiased squared MMD under k(x, y) = (x.y / D + 1)^3, over subsets.

Source: Binkowski et al. 2018.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from pydantic import Field
from torch import Tensor
from torch_fidelity.metric_kid import (
    KEY_METRIC_KID_MEAN,
    KEY_METRIC_KID_STD,
    kernel_mmd,
    kid_features_to_metric,
)

from t2i.benchmarks.score.metrics.common import SEED, FeaturesMetricConfig, TwoSets, around
from t2i.core.interfaces.scoring import Intervals, Scores

PARTS = 10  # disjoint parts, at least, from which the interval is computed
LEAST = 10  # images, at least, in each of them


class KidConfig(FeaturesMetricConfig):
    """Settings of the metric "kid"."""

    subsets: int = Field(100, ge=1)
    """Number of random subsets that the distance is averaged over."""
    subset_size: int = Field(1000, ge=2)
    """Number of images in each subset. If a set has fewer images, all of them are used."""


class Kid(TwoSets):
    """Kernel distance between generated and real images.

    Scores: `kid` is the mean over the subsets, `kid_std` their standard deviation, as
    torch-fidelity prints them.

    Args:
        config: The settings.
    """

    better = MappingProxyType({"kid": "lower", "kid_std": "none"})

    def __init__(self, config: KidConfig) -> None:
        super().__init__(config)
        self.config = config
        self._kid = 0.0

    def compute(self) -> Scores:
        ours, real = self.both("kid", 2)
        size = min(self.config.subset_size, len(ours), len(real))
        found = kid_features_to_metric(
            ours, real, kid_subsets=self.config.subsets, kid_subset_size=size, rng_seed=SEED,
            verbose=False,
        )  # fmt: skip
        self._kid = found[KEY_METRIC_KID_MEAN]
        return {"kid": self._kid, "kid_std": found[KEY_METRIC_KID_STD]}

    def intervals(self) -> Intervals:
        """Return the interval from disjoint parts of both sets.

        The subsets of the score overlap, so their spread does not give that of the mean. There is
        no interval if the parts would have fewer than `LEAST` images.
        """
        ours, real = self.both("kid", 2)
        count = min(len(ours), len(real))
        size = min(self.config.subset_size, count // PARTS)
        if size < LEAST:
            return {}
        parts = _disjoint(ours, real, size)
        return {"kid": around(self._kid, float(np.std(parts)), len(parts))}


def _disjoint(ours: Tensor, real: Tensor, size: int) -> list[float]:
    """Return the squared MMD of random disjoint parts, with `size` images of each set in a part."""
    stream = np.random.default_rng(SEED)
    x, y = ours.numpy()[stream.permutation(len(ours))], real.numpy()[stream.permutation(len(real))]
    starts = range(0, min(len(x), len(y)) - size + 1, size)
    return [float(kernel_mmd(x[start : start + size], y[start : start + size])) for start in starts]


def build(config: KidConfig) -> Kid:
    """Build the metric "kid".

    Args:
        config: The settings.

    Returns:
        The metric.
    """
    return Kid(config)
