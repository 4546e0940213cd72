"""What the metrics on features share: their settings' base and streaming moments."""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from t2i.core.config import Config
from t2i.core.errors import UserError
from t2i.core.scoring import Metric, Pictures


class FeaturesMetricConfig(Config):
    """features: registry name of a feature extractor (`t2i features`), with "/layer" where it has several."""

    features: str = Field(min_length=1)


class TwoSets(Metric):
    """A metric that compares all real features with all generated ones, and so must keep both until the end."""

    reference, scope, captioned = True, "headline", False

    def __init__(self, config: FeaturesMetricConfig) -> None:
        self.features: str = config.features
        self._real: list[Tensor] = []
        self._ours: list[Tensor] = []

    def update_reference(self, features: Tensor) -> None:
        self._real.append(features)

    def update(self, pictures: Pictures) -> None:
        self._ours.append(pictures.features[self.features])

    def both(self, metric: str, least: int) -> tuple[Tensor, Tensor]:
        """The features (N, D) of generated and of real pictures. UserError unless there are `least` of each."""
        ours, real = torch.cat(self._ours), torch.cat(self._real)
        need(metric, min(len(ours), len(real)), least, "pictures")
        return ours, real


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
        self._scatter += centred.T @ centred + np.outer(shift, shift) * (self.count * len(x) / total)
        self.mean = self.mean + shift * (len(x) / total)
        self.count = total

    def statistics(self) -> dict[str, np.ndarray]:
        """As torch-fidelity has them: mu (D,), sigma (D, D), the unbiased covariance."""
        return {"mu": self.mean, "sigma": self._scatter / (self.count - 1)}


def need(metric: str, count: int, least: int, what: str) -> None:
    """UserError unless there are at least `least` pictures."""
    if count < least:
        raise UserError(f"metric '{metric}' needs at least {least} {what}, but got {count}: raise --samples")
