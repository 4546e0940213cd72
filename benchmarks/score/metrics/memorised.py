"""Memorised images: how much nearer to the training images samples are than unseen real images.

The distance of an image to the training set is that of its features to those of the nearest
training image. Unseen real images say how large it is without copying. Source of the comparison:
Meehan et al. 2020, who compare the two distributions of distances.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor

from t2i.benchmarks.score.metrics.common import FeaturesMetricConfig, TwoSets, need
from t2i.core.interfaces.scoring import Intervals, Scores, proportion_interval

ROWS = 1024  # images whose distances to all training images are held at once
MANY = 25.0  # percent of memorised samples from which a warning is given


class MemorisedConfig(FeaturesMetricConfig):
    """Settings of the metric "memorised"."""

    near: float = Field(0.5, gt=0, lt=1)
    """Share of the median distance of unseen images below which a sample counts as memorised."""


class Memorised(TwoSets):
    """How many samples are copies of training images.

    Scores: `memorised`, the percentage of samples that are nearer to a training image than `near`
    times the median distance of unseen real images. `train_distance`, the median distance of
    samples divided by that of unseen images: 1 means as far as new images are, 0 means copies.

    Args:
        config: The settings.
    """

    better = MappingProxyType({"memorised": "lower", "train_distance": "none"})
    training = True

    def __init__(self, config: MemorisedConfig) -> None:
        super().__init__(config)
        self.config = config
        self._training: list[Tensor] = []
        self._near = 0

    def update_training(self, features: Tensor) -> None:
        self._training.append(features)

    def share_reference(self, other: Self) -> bool:
        self._training = other._training
        return super().share_reference(other)

    def compute(self) -> Scores:
        ours, unseen = self.both("memorised", 1)
        need("memorised", sum(map(len, self._training)), 1, "training images")
        training = torch.cat(self._training)
        usual = float(nearest(unseen, training)[0].median())
        distances = nearest(ours, training)[0]
        self._near = int((distances <= self.config.near * usual).sum())
        ratio = float(distances.median()) / usual if usual else 0.0
        return {"memorised": 100 * self._near / len(ours), "train_distance": ratio}

    def intervals(self) -> Intervals:
        return {"memorised": proportion_interval(self._near, len(self._groups))}

    def protocol(self) -> dict[str, Any]:
        return {"distance": "Euclidean, to the nearest training image", "usual": "median of unseen"}

    def warnings(self, scores: Scores, real: Scores | None) -> list[str]:
        if scores["memorised"] < MANY:
            return []
        return [
            f"it copies: {scores['memorised']:.0f} % of its images are far nearer to a training "
            "image than unseen real images are"
        ]


def nearest(images: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    """Find the nearest training image of each image.

    Args:
        images: Features of the images (N, D).
        training: Features of the training images (M, D).

    Returns:
        The Euclidean distances, float64 (N,), and the indexes of the training images, int64 (N,).
    """
    known = training.double()
    places = torch.cat([
        torch.cdist(rows.double(), known, compute_mode="use_mm_for_euclid_dist").argmin(1)
        for rows in torch.split(images, ROWS)
    ])  # fmt: skip
    # The product of matrices is fast, but gives no exact zero for a copy.
    return (images.double() - known[places]).norm(dim=1), places


def build(config: MemorisedConfig) -> Memorised:
    """Build the metric "memorised".

    Args:
        config: The settings.

    Returns:
        The metric.
    """
    return Memorised(config)
