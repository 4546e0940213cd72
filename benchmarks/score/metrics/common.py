"""The common part of metrics on features: settings, ordered sets of features, intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from pydantic import Field
from scipy.special import stdtrit
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import ImageBatch, Metric
from t2i.core.settings import Config

SEED = 2020
"""Seed of all random numbers of torch-fidelity; its own default."""


class FeaturesMetricConfig(Config):
    """Base of the settings of metrics that read features."""

    features: str = Field(min_length=1)
    """Registry name of a feature extractor (`t2i features`). "/LAYER" after it selects one of its
    layers."""


class Collected(Metric):
    """A metric that needs the features of all generated images at once.

    The features are sorted by caption. Random choices among them then depend neither on the batches
    nor on the order in which parts of a set arrive.

    Args:
        config: The settings.
    """

    scope, captioned = "headline", False

    def __init__(self, config: FeaturesMetricConfig) -> None:
        self.features: str = config.features
        self._ours: list[Tensor] = []
        self._groups: list[int] = []

    def update(self, images: ImageBatch) -> None:
        self._ours.append(images.features[self.features])
        self._groups += images.groups

    def order(self) -> Tensor:
        """Sort the images by caption; samples of one caption stay in the order in which they came.

        Returns:
            Indexes of the images in that order, int64 (N,).
        """
        return torch.from_numpy(np.argsort(np.array(self._groups), kind="stable"))

    def ours(self, metric: str, least: int) -> Tensor:
        """Return the features of the generated images, sorted by caption.

        Args:
            metric: Name of the metric, for the error.
            least: Number of images that the metric needs.

        Returns:
            The features (N, D).

        Raises:
            UserError: There are fewer images.
        """
        need(metric, len(self._groups), least, "images")
        return torch.cat(self._ours)[self.order()]


class TwoSets(Collected):
    """A metric that compares the features of all generated images with those of all real ones.

    Args:
        config: The settings.
    """

    reference = True

    def __init__(self, config: FeaturesMetricConfig) -> None:
        super().__init__(config)
        self._real: list[Tensor] = []

    def update_reference(self, features: Tensor) -> None:
        self._real.append(features)

    def share_reference(self, other: Self) -> bool:
        self._real = other._real
        return True

    def both(self, metric: str, least: int) -> tuple[Tensor, Tensor]:
        """Return the features of both sets.

        Args:
            metric: Name of the metric, for the error.
            least: Number of images that the metric needs in each set.

        Returns:
            The features (N, D) of generated images, sorted by caption, and of real images.

        Raises:
            UserError: One of the sets has fewer images.
        """
        need(metric, min(len(self._groups), sum(map(len, self._real))), least, "images")
        return self.ours(metric, least), torch.cat(self._real)


class TooFew(UserError):
    """A metric needs more of something than there is.

    Args:
        shortage: What is missing, in words, without a remedy.
    """

    def __init__(self, shortage: str) -> None:
        super().__init__(f"{shortage}: raise --samples")
        self.shortage = shortage


def need(metric: str, count: int, least: int, what: str) -> None:
    """Check that a metric has enough images.

    Args:
        metric: Name of the metric, for the error.
        count: How many there are.
        least: How many are needed.
        what: What is counted, for the error.

    Raises:
        TooFew: There are too few.
    """
    if count < least:
        raise TooFew(f"metric '{metric}' needs at least {least} {what}, but got {count}")


def around(mean: float, spread: float, parts: int) -> tuple[float, float]:
    """Compute the 95 % confidence interval of a score by Student's t.

    Args:
        mean: The score.
        spread: Standard deviation of the score over disjoint parts of the images. Its variance is a
            sum of squares divided by `parts`, not by `parts` - 1, as torch-fidelity computes it.
        parts: Number of parts, at least 2.

    Returns:
        The interval (low, high).
    """
    half = float(stdtrit(parts - 1, 0.975)) * spread / math.sqrt(parts - 1)
    return mean - half, mean + half


def by_caption(values: Tensor, groups: Sequence[int]) -> list[float]:
    """Average a score over the images of each caption, because these are not independent.

    Args:
        values: The score of each image, (N,).
        groups: The number of each image's caption, N.

    Returns:
        A mean for each caption, in the order of their numbers.
    """
    found, row = np.unique(np.array(groups), return_inverse=True)
    sums = np.bincount(row, weights=values.double().numpy(), minlength=len(found))
    return list(sums / np.bincount(row, minlength=len(found)))
