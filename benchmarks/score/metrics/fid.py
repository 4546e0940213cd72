"""Frechet distance: ||mu1 - mu2||^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)).

Source: Heusel et al. 2017; thesis 3.1.

For any F with C2 = F F^T, the nonzero eigenvalues of C1 C2 are those of the symmetric F^T C1 F. The
trace of the root is therefore the sum of the square roots of these. torch-fidelity computes the
eigenvalues of the unsymmetric product, which takes several times as long; a test checks that both
agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from t2i.benchmarks.score.metrics.common import FeaturesMetricConfig, TwoSets
from t2i.core.interfaces.scoring import Intervals, Scores

BLOCK = 1024  # rows in one matrix product
SEEN = 4096  # images, at most, whose influence on the score is computed for the interval


class FidConfig(FeaturesMetricConfig):
    """Settings of the metric "fid"."""

    bootstrap: int = Field(0, ge=0)
    """Number of resamplings of the generated images for the confidence interval. 0: the delta
    method, which needs one decomposition, however many images there are."""


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of some features.

    Args:
        mean: The mean (D,), float64.
        covariance: The covariance (D, D), float64.
    """

    mean: np.ndarray
    covariance: np.ndarray


class Moments:
    """Mean and covariance of a stream of vectors, in double precision, without keeping the vectors.

    Source: Chan et al. 1979.

    Attributes:
        count: Number of vectors so far.
        mean: Their mean (D,).
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = np.zeros(0)
        self._scatter = np.zeros((0, 0))

    def add(self, features: Tensor) -> None:
        """Add a batch of vectors.

        Args:
            features: The vectors (B, D).
        """
        x = features.double().numpy()
        if not self.count:
            self.mean, self._scatter = np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
        mean = x.mean(0)
        shift, centred = mean - self.mean, x - mean
        total = self.count + len(x)
        self._scatter += centred.T @ centred + np.outer(shift, shift) * (
            self.count * len(x) / total
        )
        self.mean = self.mean + shift * (len(x) / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased covariance (D, D), as torch-fidelity computes it."""
        return self._scatter / (self.count - 1)


def moments(features: Tensor) -> Moments:
    """Compute mean and covariance of features, in blocks that depend on their number alone.

    Args:
        features: The features (N, D).

    Returns:
        Their moments.
    """
    found = Moments()
    for block in torch.split(features, BLOCK):
        found.add(block)
    return found


@dataclass
class Reference:
    """The real images. Each property is computed once, at its first use.

    Args:
        parts: Their features in batches (B, D). More may be appended until a property is used.
        given: Their mean and covariance, if these are all that is known. None: `parts` holds the
            features.
    """

    parts: list[Tensor] = field(default_factory=list)
    given: Gaussian | None = None

    @cached_property
    def features(self) -> Tensor:
        """The features (N, D)."""
        return torch.cat(self.parts)

    @cached_property
    def moments(self) -> Moments | Gaussian:
        """Mean and covariance of the features."""
        return self.given or moments(self.features)

    @cached_property
    def trace(self) -> float:
        """The trace of the covariance."""
        return float(np.trace(self.moments.covariance))

    @cached_property
    def factor(self) -> np.ndarray:
        """A matrix F (D, min(N, D)) with C = F F^T.

        If there are few images (N <= D), it is made of the centred features themselves, which is
        exact.
        """
        count, dim = (1, 0) if self.given else self.features.shape
        if count <= dim:
            centred = self.features.double().numpy() - self.moments.mean
            return np.asarray(centred.T / math.sqrt(count - 1))
        values, vectors = np.linalg.eigh(self.moments.covariance)
        root: np.ndarray = (vectors * np.sqrt(values.clip(0))) @ vectors.T
        return root


class Fid(TwoSets):
    """Frechet distance between generated and real images.

    Score: `fid`, in the squared unit of the features.

    Args:
        config: The settings.
    """

    better = MappingProxyType({"fid": "lower"})

    def __init__(self, config: FidConfig) -> None:
        super().__init__(config)
        self.config = config
        self._reference = Reference(self._real)
        self._fid = 0.0

    def share_reference(self, other: Self) -> bool:
        self._reference = other._reference
        return super().share_reference(other)

    def use_statistics(self, statistics: Gaussian) -> None:
        """Compare with real images of which only mean and covariance are known.

        Args:
            statistics: Mean and covariance of their features. They replace those of
                `update_reference`.
        """
        self._reference = Reference(given=statistics)

    def distance(self, ours: Gaussian) -> float:
        """Compute the distance of generated images of which only statistics are known.

        Args:
            ours: Mean and covariance of their features.

        Returns:
            The distance.
        """
        return frechet(ours, self._reference)

    def compute(self) -> Scores:
        known = self._reference.given is not None
        self._all = self.ours("fid", 2) if known else self.both("fid", 2)[0]
        self._moments = moments(self._all)
        self._fid = frechet(self._moments, self._reference)
        return {"fid": self._fid}

    def intervals(self) -> Intervals:
        """Return the uncertainty due to captions and noise; the reference is fixed."""
        spread = self._resampled if self.config.bootstrap else self._delta
        half = 1.96 * spread()
        return {"fid": (max(0.0, self._fid - half), max(0.0, self._fid + half))}

    def _resampled(self) -> float:
        """Return the standard deviation over bootstrap samples.

        Their mean is not used, because repeated images bias a resampled distance upwards.
        """
        stream, count = np.random.default_rng(0), len(self._all)
        drawn = (stream.integers(count, size=count) for _ in range(self.config.bootstrap))
        distances = [
            frechet(moments(self._all[torch.from_numpy(rows)]), self._reference) for rows in drawn
        ]
        return float(np.std(distances))

    def _delta(self) -> float:
        """Return the standard deviation by the delta method, from the influence of images."""
        every = math.ceil(len(self._all) / SEEN)
        return float(
            np.std(influence(self._all[::every], self._moments, self._reference))
        ) / math.sqrt(len(self._all))


def frechet(ours: Moments | Gaussian, real: Reference) -> float:
    """Compute the Frechet distance between two Gaussians.

    Source: Heusel et al. 2017.

    Args:
        ours: Moments of the generated images.
        real: The real images.

    Returns:
        The distance.
    """
    C, F, d = ours.covariance, real.factor, ours.mean - real.moments.mean
    root = np.sqrt(np.linalg.eigvalsh(F.T @ C @ F).clip(0)).sum()
    return float(d @ d + np.trace(C) + real.trace - 2 * root)


def influence(x: Tensor, ours: Moments, real: Reference) -> np.ndarray:
    """Compute the derivative of the distance by the weight of each generated image.

    With M = F^T C F, d Tr M^(1/2) = 1/2 Tr(M^(-1/2) dM). An image at y from the mean adds y y^T to
    C and y to the mean, which gives 2 d.y + y.y - y^T F M^(-1/2) F^T y. The variance of these
    numbers, divided by N, is that of the score (Efron's infinitesimal jackknife).

    Args:
        x: Features of the images (N, D).
        ours: Moments of all generated images.
        real: The real images.

    Returns:
        The derivatives (N,), up to a common constant.
    """
    F, y = real.factor, x.double().numpy() - ours.mean
    values, vectors = np.linalg.eigh(F.T @ ours.covariance @ F)
    kept = values > values[-1] * len(values) * np.finfo(float).eps
    along = y @ (F @ vectors[:, kept])
    linear = 2 * y @ (ours.mean - real.moments.mean)
    found: np.ndarray = linear + (y * y).sum(1) - (along**2 / np.sqrt(values[kept])).sum(1)
    return found


def build(config: FidConfig) -> Fid:
    """Build the metric "fid".

    Args:
        config: The settings.

    Returns:
        The metric.
    """
    return Fid(config)
