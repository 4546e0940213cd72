"""Bits per dimension: how many bits a model spends on a value of a real image.

It is -log2 p(image | caption) / D for D values in an image, averaged over real images.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from pydantic import Field
from scipy.special import stdtrit
from torch import Tensor

from t2i.benchmarks.score.metrics.common import need
from t2i.core.interfaces.likelihood import LEVELS, bits_per_dim
from t2i.core.interfaces.scoring import ImageBatch, Intervals, Metric, Scores
from t2i.core.settings import Config


class BitsPerDimConfig(Config):
    """Settings of the metric "bits-per-dim"."""

    images: int = Field(100, ge=2)
    """Number of real images, the first ones of the headline captions' split."""

    settings: Mapping[str, Any] = {}
    """Settings of the models' likelihoods, such as the tolerance of a solver."""


class BitsPerDim(Metric):
    """Bits per dimension of real images, averaged over images.

    Score: `bits_per_dim`. 8 is no model at all: every level is equally probable. Scores may be
    compared only if they were computed in the same way (`Likelihood.protocol`). Densities of
    latents have bits per latent, which may be negative.

    Args:
        config: The settings.
    """

    better = MappingProxyType({"bits_per_dim": "lower"})
    scope, captioned, likelihood = "headline", False, True

    def __init__(self, config: BitsPerDimConfig) -> None:
        self.config = config
        self._each: list[Tensor] = []

    def update(self, images: ImageBatch) -> None:
        assert images.nats is not None
        dims = images.dims or images.images[0].size
        self._each.append(bits_per_dim(images.nats.double(), dims))

    def compute(self) -> Scores:
        need("bits-per-dim", sum(map(len, self._each)), 1, "image")
        return {"bits_per_dim": float(torch.cat(self._each).mean())}

    def intervals(self) -> Intervals:
        values = torch.cat(self._each)
        if len(values) < 2:
            return {}
        error = float(values.std()) / math.sqrt(len(values))
        half = float(stdtrit(len(values) - 1, 0.975)) * error
        mean = float(values.mean())
        return {"bits_per_dim": (mean - half, mean + half)}

    def protocol(self) -> dict[str, Any]:
        return {"bit_depth": int(math.log2(LEVELS)), "interval": "Student's t over images"}


def build(config: BitsPerDimConfig) -> BitsPerDim:
    """Build the metric "bits-per-dim".

    Args:
        config: The settings.

    Returns:
        The metric.
    """
    return BitsPerDim(config)
