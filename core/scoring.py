"""What a benchmark is made of: metrics, feature extractors, and the benchmark's own description."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn


class FeatureExtractor(nn.Module, ABC):
    """A frozen network that turns pictures into feature vectors.

    name, weights_sha256: part of the protocol of every score made with it. dim: D.
    """

    name: str
    weights_sha256: str
    dim: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> float32 (B, D). Resizes by itself, the same for every set of pictures."""


@dataclass(frozen=True)
class Pictures:
    """A batch of pictures to score. images: uint8 (B, H, W, 3). captions: B.
    groups: B numbers, equal for the samples of one prompt."""

    images: np.ndarray
    captions: tuple[str, ...]
    groups: tuple[int, ...]


class Metric(ABC):
    """Scores a stream of pictures. One instance scores one set once: `update` for each batch, then `compute`.

    reference: whether `update_reference` must be given real pictures first.
    better: for each score that `compute` returns, "higher", "lower" or "none" (described, not ranked).
    """

    reference: bool = False
    better: Mapping[str, str]

    def update_reference(self, pictures: Pictures) -> None:  # noqa: B027
        """Takes a batch of the reference set."""

    @abstractmethod
    def update(self, pictures: Pictures) -> None:
        """Takes a batch of pictures."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """The scores. Percentages are 0..100, everything else in the metric's own unit."""

    def protocol(self) -> dict[str, Any]:
        """What the scores depend on beside the pictures: extractor, weights' hash, resizer, subset sizes."""
        return {}


@dataclass(frozen=True)
class PromptSet:
    """Captions to sample for, out of a split of a data set. count: how many captions, from index 0 on."""

    name: str
    split: str
    count: int
    data: Mapping[str, Any] = field(default_factory=dict)
    headline: bool = False


@dataclass(frozen=True)
class Benchmark:
    """A benchmark under one protocol.

    dataset: registry name. prompts: the caption sets; the headline set's real pictures are the reference.
    metrics: (registry name, settings) of each. default_models: one row each. minutes: training budget of each model.
    per_prompt: samples for each caption. variety: (captions, samples each) for diversity within a caption.
    grid: captions shown in the report. headline: the score that the table is sorted by.
    """

    name: str
    protocol: str
    dataset: str
    prompts: Sequence[PromptSet]
    metrics: Sequence[tuple[str, Mapping[str, Any]]]
    default_models: Sequence[Sequence[str]]
    minutes: float
    headline: str
    per_prompt: int = 1
    variety: tuple[int, int] = (16, 8)
    grid: Sequence[str] = ()
