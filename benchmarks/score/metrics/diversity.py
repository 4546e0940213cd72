"""Diversity within a caption: how much the images of one caption differ.

The score is the mean distance between the features of two images of one caption, in percent of the
mean distance between two real images of different captions. A score far below that of real images
of one caption means mode collapse. A score far above it means that the model ignores part of the
caption.
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

# Thresholds of the warnings, as multiples of the real images' diversity.
COLLAPSED = 0.25
STRAYING = 2.0
# The same in percent, if there are no several real images of one caption to compare with.
COLLAPSED_OUTRIGHT = 5.0
STRAYING_OUTRIGHT = 95.0


class DiversityConfig(FeaturesMetricConfig):
    """Settings of the metric "diversity"."""


class Diversity(Metric):
    """Diversity within a caption, averaged over captions.

    Score: `diversity`, in percent. 0: all images of a caption are equal. 100: they differ as much
    as real images of different captions do.

    Args:
        config: The settings.
    """

    better = MappingProxyType({"diversity": "none"})
    reference, scope, captioned = True, "variety", True

    def __init__(self, config: DiversityConfig) -> None:
        self.config = config
        self.features = config.features
        self._real: list[Tensor] = []
        self._groups: dict[int, list[Tensor]] = defaultdict(list)
        self._each: Tensor = torch.zeros(0)

    def update_reference(self, features: Tensor) -> None:
        if sum(map(len, self._real)) < 2000:  # enough for the mean distance
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
        return {"scale": "mean distance between real pictures of different captions = 100"}

    def warnings(self, scores: Scores, real: Scores | None) -> list[str]:
        ours = scores["diversity"]
        low = COLLAPSED * real["diversity"] if real else COLLAPSED_OUTRIGHT
        high = STRAYING * real["diversity"] if real else STRAYING_OUTRIGHT
        against = f", real images {real['diversity']:.0f} %" if real else ""
        if ours < low:
            return [
                "mode collapse: images of one caption are nearly alike "
                f"(diversity {ours:.0f} %{against})"
            ]
        if ours > high:
            return [
                "ignores part of the caption: its images differ too much "
                f"(diversity {ours:.0f} %{against})"
            ]
        return []


def build(config: DiversityConfig) -> Diversity:
    """Build the metric "diversity".

    Args:
        config: The settings.

    Returns:
        The metric.
    """
    return Diversity(config)
