"""Diversity within a caption: how unlike each other the images of one caption are.

Mean distance between the features of two images of one caption, in percent of that between two real images of
different captions. Far below what real images of one caption have is mode collapse; far above means that
something the caption says is ignored.
"""

from __future__ import annotations

import math
from collections import defaultdict
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor

from t2i.benchmarks.score.metrics.common import FeaturesMetricConfig, need
from t2i.core.interfaces.scoring import ImageBatch, Intervals, Metric, Scores

COLLAPSED = 0.25  # of the real images' diversity
STRAYING = 2.0
# In percent, where there are no real images of the same caption to compare with.
COLLAPSED_OUTRIGHT = 5.0
STRAYING_OUTRIGHT = 95.0


class DiversityConfig(FeaturesMetricConfig):
    """Settings: the features alone."""


class Diversity(Metric):
    """`diversity`: percent, 0 where all images of a caption are alike, 100 where they differ as captions do."""

    better = MappingProxyType({"diversity": "none"})
    reference, scope, captioned = True, "variety", True

    def __init__(self, config: DiversityConfig) -> None:
        self.config = config
        self.features = config.features
        self._real: list[Tensor] = []
        self._groups: dict[int, list[Tensor]] = defaultdict(list)
        self._each: Tensor = torch.zeros(0)

    def update_reference(self, features: Tensor) -> None:
        if sum(map(len, self._real)) < 2000:  # the mean distance needs no more
            self._real.append(features)

    def share_reference(self, other: Self) -> bool:
        self._real = other._real
        return True

    def update(self, images: ImageBatch) -> None:
        for group, vector in zip(images.groups, images.features[self.config.features], strict=True):
            self._groups[group].append(vector)

    def compute(self) -> Scores:
        real = torch.cat(self._real)
        need("diversity", len(real), 2, "real images")
        need("diversity", min(map(len, self._groups.values())), 2, "samples of each caption")
        between = torch.pdist(real.double()).mean()
        within = [
            torch.pdist(torch.stack(group).double()).mean() for group in self._groups.values()
        ]
        self._each = 100 * torch.stack(within) / between
        return {"diversity": float(self._each.mean())}

    def intervals(self) -> Intervals:
        if len(self._each) < 2:
            return {}
        mean, half = (
            float(self._each.mean()),
            1.96 * float(self._each.std()) / math.sqrt(len(self._each)),
        )
        return {"diversity": (max(0.0, mean - half), mean + half)}

    def protocol(self) -> dict[str, Any]:
        return {"scale": "mean distance between real images of different captions = 100"}

    def warnings(self, scores: Scores, real: Scores | None) -> list[str]:
        ours = scores["diversity"]
        low = COLLAPSED * real["diversity"] if real else COLLAPSED_OUTRIGHT
        high = STRAYING * real["diversity"] if real else STRAYING_OUTRIGHT
        against = f", real images {real['diversity']:.0f} %" if real else ""
        if ours < low:
            return [
                f"mode collapse: images of one caption are nearly alike (diversity {ours:.0f} %{against})"
            ]
        if ours > high:
            return [
                f"ignores part of the caption: its images differ too much (diversity {ours:.0f} %{against})"
            ]
        return []


def build(config: DiversityConfig) -> Diversity:
    """The metric "diversity"."""
    return Diversity(config)
