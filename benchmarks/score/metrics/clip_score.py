"""CLIP score: the cosine between CLIP's features of an image and of its caption.

Source: Hessel et al. 2021.
"""

from __future__ import annotations

import math
from types import MappingProxyType

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from t2i.benchmarks.score.metrics.common import FeaturesMetricConfig, by_caption, need
from t2i.core.interfaces.scoring import ImageBatch, Intervals, Metric, Scores

WEIGHT = 2.5  # w of the paper's CLIP-S, which stretches the cosines of good captions over 0 to 1


class ClipScoreConfig(FeaturesMetricConfig):
    """Settings of the metric "clip-score"."""

    features: str = Field("clip", min_length=1)
    """Registry name of a CLIP's features, which include text."""


class ClipScore(Metric):
    """CLIP score, averaged over images.

    Scores: `clip_score` is 100 max(cos, 0), as most papers and torchmetrics print it. `clip_s` is
    2.5 max(cos, 0), the CLIP-S of Hessel et al. 2021. Only scores of the same CLIP may be compared.

    Args:
        config: The settings.
    """

    better = MappingProxyType({"clip_score": "higher", "clip_s": "none"})
    text = True

    def __init__(self, config: ClipScoreConfig) -> None:
        self.features: str = config.features
        self._each: list[Tensor] = []
        self._groups: list[int] = []
        self._mean = 0.0

    def update(self, images: ImageBatch) -> None:
        seen, said = images.features[self.features], images.text_features[self.features]
        self._each.append(F.cosine_similarity(seen.double(), said.double()).clamp(min=0))
        self._groups += images.groups

    def compute(self) -> Scores:
        need("clip-score", len(self._groups), 1, "image")
        self._mean = float(torch.cat(self._each).mean())
        return {"clip_score": 100 * self._mean, "clip_s": WEIGHT * self._mean}

    def intervals(self) -> Intervals:
        means = by_caption(torch.cat(self._each), self._groups)
        if len(means) < 2:
            return {}
        half = 1.96 * float(torch.tensor(means).std()) / math.sqrt(len(means))
        low, high = max(0.0, self._mean - half), self._mean + half
        return {"clip_score": (100 * low, 100 * high), "clip_s": (WEIGHT * low, WEIGHT * high)}


def build(config: ClipScoreConfig) -> ClipScore:
    """Build the metric "clip-score".

    Args:
        config: The settings.

    Returns:
        The metric.
    """
    return ClipScore(config)
