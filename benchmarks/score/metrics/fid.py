"""Frechet distance (Heusel et al. 2017; thesis 3.1): ||mu1 - mu2||^2 + Tr(C1 + C2 - 2 (C1 C2)^(1/2)).

With any F such that C2 = F F^T, the eigenvalues of C1 C2 that are not 0 are those of the symmetric F^T C1 F, so the
root's trace is the sum of their roots. torch-fidelity asks for the eigenvalues of the unsymmetric product, which costs
several times as much; a test holds the two equal.
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

BLOCK = 1024  # rows that go into a product at once
SEEN = 4096  # images whose influence on the score is looked at, for the interval


class FidConfig(FeaturesMetricConfig):
    """bootstrap: resamplings of the generated images for the confidence interval (0: the delta method, which takes
    one decomposition, however many features there are)."""

    bootstrap: int = Field(0, ge=0)


class Moments:
    """Mean and covariance of a stream of vectors, in double precision, without keeping them (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = np.zeros(0)
        self._scatter = np.zeros((0, 0))

    def add(self, features: Tensor) -> None:
        """Takes a batch (B, D)."""
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
        """(D, D), unbiased, as torch-fidelity has it."""
        return self._scatter / (self.count - 1)


def moments(features: Tensor) -> Moments:
    """Those of features (N, D), taken in blocks that depend on nothing but N."""
    found = Moments()
    for block in torch.split(features, BLOCK):
        found.add(block)
    return found


@dataclass
class Reference:
    """The real images' side. Everything is made once, when it is first asked for."""

    parts: list[Tensor] = field(default_factory=list)

    @cached_property
    def features(self) -> Tensor:
        return torch.cat(self.parts)

    @cached_property
    def moments(self) -> Moments:
        return moments(self.features)

    @cached_property
    def trace(self) -> float:
        return float(np.trace(self.moments.covariance))

    @cached_property
    def factor(self) -> np.ndarray:
        """F (D, min(N, D)) with C = F F^T: of few images the centred features themselves, which is exact."""
        count, dim = self.features.shape
        if count <= dim:
            centred = self.features.double().numpy() - self.moments.mean
            return np.asarray(centred.T / math.sqrt(count - 1))
        values, vectors = np.linalg.eigh(self.moments.covariance)
        root: np.ndarray = (vectors * np.sqrt(values.clip(0))) @ vectors.T
        return root


class Fid(TwoSets):
    """`fid`: the distance, in the features' unit squared."""

    better = MappingProxyType({"fid": "lower"})

    def __init__(self, config: FidConfig) -> None:
        super().__init__(config)
        self.config = config
        self._reference = Reference(self._real)
        self._fid = 0.0

    def share_reference(self, other: Self) -> bool:
        self._reference = other._reference
        return super().share_reference(other)

    def compute(self) -> Scores:
        self._all, _ = self.both("fid", 2)
        self._moments = moments(self._all)
        self._fid = frechet(self._moments, self._reference)
        return {"fid": self._fid}

    def intervals(self) -> Intervals:
        """What drawing other captions and noise would change; the reference is taken as it is."""
        spread = self._resampled if self.config.bootstrap else self._delta
        half = 1.96 * spread()
        return {"fid": (max(0.0, self._fid - half), self._fid + half)}

    def _resampled(self) -> float:
        """Standard deviation over bootstrap samples. Their own middle is of no use: repeated images bias a resampled
        distance upwards."""
        stream, count = np.random.default_rng(0), len(self._all)
        drawn = (stream.integers(count, size=count) for _ in range(self.config.bootstrap))
        distances = [
            frechet(moments(self._all[torch.from_numpy(rows)]), self._reference) for rows in drawn
        ]
        return float(np.std(distances))

    def _delta(self) -> float:
        every = math.ceil(len(self._all) / SEEN)
        return float(
            np.std(influence(self._all[::every], self._moments, self._reference))
        ) / math.sqrt(len(self._all))


def frechet(ours: Moments, real: Reference) -> float:
    """The distance between two Gaussians."""
    C, F, d = ours.covariance, real.factor, ours.mean - real.moments.mean
    root = np.sqrt(np.linalg.eigvalsh(F.T @ C @ F).clip(0)).sum()
    return float(d @ d + np.trace(C) + real.trace - 2 * root)


def influence(x: Tensor, ours: Moments, real: Reference) -> np.ndarray:
    """(N,) the distance's derivative (up to a constant) in the weight of each image, from its features (N, D).

    With M = F^T C F, d Tr M^(1/2) = 1/2 Tr(M^(-1/2) dM); an image at y from the mean adds y y^T to C, and y to the
    mean: 2 d.y + y.y - y^T F M^(-1/2) F^T y. The variance of these numbers over N is that of the score (Efron's
    infinitesimal jackknife).
    """
    F, y = real.factor, x.double().numpy() - ours.mean
    values, vectors = np.linalg.eigh(F.T @ ours.covariance @ F)
    kept = values > values[-1] * len(values) * np.finfo(float).eps
    along = y @ (F @ vectors[:, kept])
    linear = 2 * y @ (ours.mean - real.moments.mean)
    found: np.ndarray = linear + (y * y).sum(1) - (along**2 / np.sqrt(values[kept])).sum(1)
    return found


def build(config: FidConfig) -> Fid:
    """The metric "fid"."""
    return Fid(config)
