"""What the metrics on features share: their settings' base, sets of features in one order, intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from pydantic import Field
from scipy.stats import t as student
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import ImageBatch, Metric
from t2i.core.settings import Config

SEED = 2020
"""Of every draw that torch-fidelity makes: its own default."""


class FeaturesMetricConfig(Config):
    """features: registry name of a feature extractor (`t2i features`), with "/layer" where it has several."""

    features: str = Field(min_length=1)


class Collected(Metric):
    """A metric that needs the features of all generated images at once.

    They are put into the order of their captions, so that neither batches nor the order in which shards of a set
    arrive change what is drawn from them.
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
        """(N,) which images come first, second, ...: by caption, the samples of one as they came."""
        return torch.from_numpy(np.argsort(np.array(self._groups), kind="stable"))

    def ours(self, metric: str, least: int) -> Tensor:
        """The features (N, D) of generated images, in order. UserError unless there are `least`."""
        need(metric, len(self._groups), least, "images")
        return torch.cat(self._ours)[self.order()]


class TwoSets(Collected):
    """A metric that compares all generated features with all real ones."""

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
        """The features (N, D) of generated and of real images. UserError unless there are `least` of each."""
        need(metric, min(len(self._groups), sum(map(len, self._real))), least, "images")
        return self.ours(metric, least), torch.cat(self._real)


def need(metric: str, count: int, least: int, what: str) -> None:
    """UserError unless there are at least `least` images."""
    if count < least:
        raise UserError(
            f"metric '{metric}' needs at least {least} {what}, but got {count}: raise --samples"
        )


def around(mean: float, spread: float, parts: int) -> tuple[float, float]:
    """95 % interval of a score, by Student's t. spread: standard deviation (divided by `parts`, as torch-fidelity has
    it) of what disjoint parts of the images gave for it."""
    half = float(student.ppf(0.975, parts - 1)) * spread / math.sqrt(parts - 1)
    return mean - half, mean + half


def by_caption(values: Tensor, groups: Sequence[int]) -> list[float]:
    """Means of a score an image over the images of each caption: those of one caption are no independent draws."""
    found, row = np.unique(np.array(groups), return_inverse=True)
    sums = np.bincount(row, weights=values.double().numpy(), minlength=len(found))
    return list(sums / np.bincount(row, minlength=len(found)))
