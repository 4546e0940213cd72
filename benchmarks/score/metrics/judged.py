"""Scores by judges: networks that say how well an image pleases people or fits its caption."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from t2i.benchmarks.score.metrics.common import FeaturesMetricConfig, by_caption, need
from t2i.core.interfaces.scoring import ImageBatch, Intervals, Metric, Scores


class JudgedConfig(FeaturesMetricConfig):
    """Base of the settings of scores by a judge."""

    score: ClassVar[str]
    scale: ClassVar[float] = 1.0


class PickscoreConfig(JudgedConfig):
    """Settings of the metric "pickscore"."""

    score: ClassVar[str] = "pickscore"
    features: str = Field("pickscore", min_length=1)
    """Registry name of PickScore's features."""


class Hpsv2Config(JudgedConfig):
    """Settings of the metric "hpsv2"."""

    score: ClassVar[str] = "hpsv2"
    scale: ClassVar[float] = 100.0
    features: str = Field("hpsv2", min_length=1)
    """Registry name of HPSv2's features, whose setting `version` chooses the judge."""


class ImageRewardConfig(JudgedConfig):
    """Settings of the metric "image-reward"."""

    score: ClassVar[str] = "image_reward"
    features: str = Field("image-reward", min_length=1)
    """Registry name of ImageReward's features."""


class VqascoreConfig(JudgedConfig):
    """Settings of the metric "vqascore"."""

    score: ClassVar[str] = "vqascore"
    scale: ClassVar[float] = 100.0
    features: str = Field("vqascore", min_length=1)
    """Registry name of VQAScore's features."""


class TifaConfig(JudgedConfig):
    """Settings of the metric "tifa"."""

    score: ClassVar[str] = "tifa"
    scale: ClassVar[float] = 100.0
    features: str = Field("tifa", min_length=1)
    """Registry name of TIFA's features."""


class DsgConfig(JudgedConfig):
    """Settings of the metric "dsg"."""

    score: ClassVar[str] = "dsg"
    scale: ClassVar[float] = 100.0
    features: str = Field("dsg", min_length=1)
    """Registry name of DSG's features."""


class Judged(Metric):
    """A judge's score, averaged over images.

    The judge is a feature extractor. If it compares an image with its caption itself
    (`PairedExtractor`), its one feature is the score. Otherwise the score is the product of
    the features of the image and of the caption.

    Args:
        config: The settings.

    Attributes:
        each: The score of each image, in the order in which the images came.
    """

    def __init__(self, config: JudgedConfig) -> None:
        self.better = MappingProxyType({config.score: "higher"})
        self.config, self.features = config, config.features
        self.text = True
        self.each: list[float] = []
        self._groups: list[int] = []

    def update(self, images: ImageBatch) -> None:
        seen = images.features[self.config.features].double()
        said = images.text_features.get(self.config.features)
        values = seen[:, 0] if said is None else (seen * said.double()).sum(1)
        self.each += (self.config.scale * values).tolist()
        self._groups += images.groups

    def compute(self) -> Scores:
        need(self.config.score, len(self.each), 1, "image")
        return {self.config.score: float(torch.tensor(self.each, dtype=torch.double).mean())}

    def intervals(self) -> Intervals:
        values = torch.tensor(self.each, dtype=torch.double)
        means: Tensor = torch.tensor(by_caption(values, self._groups))
        if len(means) < 2:
            return {}
        mean, half = float(values.mean()), 1.96 * float(means.std()) / math.sqrt(len(means))
        return {self.config.score: (mean - half, mean + half)}


def build(config: JudgedConfig) -> Judged:
    """Build the metric of a judge.

    Args:
        config: The settings.

    Returns:
        The metric.
    """
    return Judged(config)
