"""R-precision: how often an image is nearer to its own caption than to 99 others.

Source: Xu et al. 2018, section 4.1, with R = 1 of 100 candidates. The paper uses its DAMSM, which
its generator was trained with. Here the setting `features` names the network.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from t2i.benchmarks.score.metrics.common import Collected, FeaturesMetricConfig, by_caption, need
from t2i.core.interfaces.scoring import ImageBatch, Intervals, Scores, proportion_interval

CHUNK = 256  # images whose candidates are compared at once


class RPrecisionConfig(FeaturesMetricConfig):
    """Settings of the metric "r-precision"."""

    features: str = Field("clip", min_length=1)
    """Registry name of a CLIP's features, which include text."""
    candidates: int = Field(100, ge=2)
    """Number of captions that an image is compared with, its own included. If there are fewer, all
    are used."""
    seed: int = Field(0, ge=0)
    """Seed of the random choice of the other captions."""


class RPrecision(Collected):
    """R-precision of generated images.

    Score: `r_precision`, the percentage of images whose own caption has a higher cosine than all
    others. Equal captions count as one.

    Args:
        config: The settings.
    """

    better = MappingProxyType({"r_precision": "higher"})
    text, captioned = True, True

    def __init__(self, config: RPrecisionConfig) -> None:
        super().__init__(config)
        self.config = config
        self._captions: list[str] = []
        self._said: dict[str, Tensor] = {}
        self._right = torch.zeros(0)

    def update(self, images: ImageBatch) -> None:
        super().update(images)
        self._captions += images.captions
        self._said |= zip(images.captions, images.text_features[self.features], strict=True)

    def compute(self) -> Scores:
        seen = F.normalize(self.ours("r-precision", 2), dim=1)
        captions = [self._captions[row] for row in self.order().tolist()]
        number = {caption: n for n, caption in enumerate(dict.fromkeys(captions))}
        need("r-precision", len(number), 2, "captions that differ")
        said = F.normalize(torch.stack([self._said[caption] for caption in number]), dim=1)
        own = torch.tensor([number[caption] for caption in captions])
        rows = torch.split(torch.arange(len(own)), CHUNK)
        self._right = torch.cat(
            [_right(seen[r], said, own[r], self._others(own, r, len(number))) for r in rows]
        )
        return {"r_precision": 100 * float(self._right.mean())}

    def _others(self, own: Tensor, rows: Tensor, count: int) -> Tensor:
        """Choose other captions for each image; the choice depends on the image's place alone.

        The result holds the numbers of captions, (B, candidates - 1).
        """
        wanted = min(self.config.candidates, count) - 1
        streams = (np.random.default_rng((self.config.seed, row)) for row in rows.tolist())
        drawn = torch.from_numpy(
            np.stack([stream.choice(count - 1, wanted, replace=False) for stream in streams])
        )
        return drawn + (drawn >= own[rows, None])  # skips the image's own caption

    def intervals(self) -> Intervals:
        groups = sorted(self._groups)
        right, of = sum(by_caption(self._right, groups)), len(set(groups))
        return {"r_precision": proportion_interval(right, of)}

    def protocol(self) -> dict[str, Any]:
        return {"R": 1, "ties": "lost"}


def _right(seen: Tensor, said: Tensor, own: Tensor, others: Tensor) -> Tensor:
    """Return 1 for each image whose cosine to its own caption is above all others, else 0: (B,)."""
    own_cosine = (seen * said[own]).sum(1)
    best = torch.einsum("bd,bkd->bk", seen, said[others]).amax(1)
    return (own_cosine > best).float()


def build(config: RPrecisionConfig) -> RPrecision:
    """Build the metric "r-precision".

    Args:
        config: The settings.

    Returns:
        The metric.
    """
    return RPrecision(config)
