"""What a benchmark is made of: metrics, feature extractors, and the benchmark's own description."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
from torch import Tensor, nn

from t2i.core.errors import UserError

Scope = Literal["every", "headline", "variety"]
"""Which images a metric scores: those of every prompt set, of the headline set, or many of each of a few captions."""

Scores = dict[str, float]
Intervals = dict[str, tuple[float, float]]


def proportion_interval(right: float, of: int) -> tuple[float, float]:
    """95 % confidence interval, in percent, of a proportion observed as `right` out of `of` independent images
    (Wilson 1927, eq. 1)."""
    z = 1.959964
    p, shrink = right / of, 1 + z * z / of
    centre = (p + z * z / (2 * of)) / shrink
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / shrink
    low, high = 100 * (centre - half), 100 * (centre + half)
    return (low if right > 0 else 0.0), (
        high if right < of else 100.0
    )  # exact at the ends, where rounding is not


class FeatureExtractor(nn.Module, ABC):
    """A frozen network that turns images into feature vectors.

    name, weights_sha256: part of the protocol of every score made with it. dim: D.
    layers: names of parts of the vector, for a network of which several layers are compared; a metric that asks for
    the features "inception/pool" gets the part "pool" of the extractor "inception", and all is extracted once.
    networks: names under which the network is published; a model whose settings name it was trained against its judge.
    """

    name: str
    weights_sha256: str
    dim: int
    layers: Mapping[str, slice] = {}
    networks: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> float32 (B, D). Resizes by itself, the same for every set of images."""

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Captions -> float32 (B, D) in the space of the images, for a network that has a side for text (optional).
        UserError if it has none."""
        raise UserError(
            f"features '{self.name}' know no text: a score of captions needs those of a CLIP"
        )

    def is_named(self, text: str) -> bool:
        """Whether a text in a model's settings (a name, a folder) means this very network."""
        return text in self.networks


@dataclass(frozen=True)
class ImageBatch:
    """A batch of images to score. images: uint8 (B, H, W, 3); none of them where all metrics read features, since
    then only those are kept. captions: B.

    groups: B numbers, equal for the samples of one prompt.
    features: (B, D) float32 on the processor, by the name under which a metric asked for them; each extractor has run
    once, however many metrics read it. text_features: (B, D) of the captions, by the same names, for metrics that
    read text.
    """

    images: np.ndarray
    captions: tuple[str, ...]
    groups: tuple[int, ...]
    features: Mapping[str, Tensor] = field(default_factory=dict)
    text_features: Mapping[str, Tensor] = field(default_factory=dict)


class Metric(ABC):
    """Scores a stream of images. One instance scores one set once: `update` for each batch, then `compute`.

    better: for each score that `compute` returns, "higher", "lower" or "none" (described, not ranked).
    features: registry name of the extractor whose features it reads, with "/layer" if need be; None for none.
    text: whether it also reads what the extractor makes of the captions.
    reference: whether `update_reference` must be given features of real images first.
    scope: which images it scores.
    captioned: whether a score depends on which caption belongs to which image; those that do get a floor: the real
    images of the wrong captions.
    networks: names of the published networks that it looks through beside its extractor; a model whose settings name
    one of them was trained against its own judge, and is marked.
    """

    better: Mapping[str, str]
    features: str | None = None
    text: bool = False
    reference: bool = False
    scope: Scope = "every"
    captioned: bool = True
    networks: tuple[str, ...] = ()

    def update_reference(self, features: Tensor) -> None:  # noqa: B027
        """Takes the features (B, D) of a batch of the reference set."""

    def share_reference(self, other: Self) -> bool:
        """Takes over the reference that `other`, under the same settings, was given, with all that was made of it, so
        that this is done once for all rows. False: it cannot, and is given the features itself."""
        return False

    @abstractmethod
    def update(self, images: ImageBatch) -> None:
        """Takes a batch of images."""

    @abstractmethod
    def compute(self) -> Scores:
        """The scores. Percentages are 0..100, everything else in the metric's own unit."""

    def intervals(self) -> Intervals:
        """95 % confidence intervals (low, high) of those scores for which there is one; after `compute`."""
        return {}

    def protocol(self) -> dict[str, Any]:
        """What the scores depend on beside the images, the extractor and the settings: versions, thresholds."""
        return {}

    def warnings(self, scores: Scores, real: Scores | None) -> list[str]:
        """What a reader of the table should be told, given the scores of a model and those of real images (None
        where the data set has none to compare with)."""
        return []


@dataclass(frozen=True)
class PromptSet:
    """Captions to sample for: the first of each of `count` examples of a split, from index 0 on.

    data: settings of the data set, laid over the benchmark's. about: one line for the report.
    select: key of a hash by which examples, and one caption of each, are chosen instead (`benchmarks/run/choice.py`):
    the same ones for everybody, in whatever order the data set has them.
    """

    name: str
    split: str
    count: int
    data: Mapping[str, Any] = field(default_factory=dict)
    headline: bool = False
    about: str = ""
    select: str = ""


@dataclass(frozen=True)
class Published:
    """Scores that others printed of a model. They stand beside ours, marked, and are never ranked with them.

    scores: by the title of the table's column. protocol: what was scored, as far as the source says. source: who
    printed it, and where.
    """

    model: str
    scores: Mapping[str, float]
    protocol: str
    source: str


@dataclass(frozen=True)
class Measure:
    """A metric under its settings.

    label: its name in the results (default: the metric's). shown: the scores that get a column in the table, with
    its title (none: all of them, under their own names). bars: those that the report draws side by side (accuracy by
    attribute). optional: whether it is left out, and said to be, where its network's weights are not there.
    """

    metric: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    shown: Mapping[str, str] = field(default_factory=dict)
    bars: tuple[str, ...] = ()
    optional: bool = False

    @property
    def name(self) -> str:
        return self.label or self.metric


@dataclass(frozen=True)
class Benchmark:
    """A benchmark under one protocol: all that scores depend on, as data.

    dataset, data: registry name and settings of the data set, whose images are `image_size` wide.
    train: settings of the same data set for training, laid over `data`.
    prompts: the caption sets, exactly one of them the headline.
    reference: how many real images of the headline set, from index 0 on, are the reference; or "all" images of its
    split; or those that belong to its "captions".
    real: split that the row of real images is taken from ("": whatever is best, see `benchmarks/run/sets.py`).
    published: scores that others printed.
    fetch: name of the download that holds the data set (`t2i fetch NAME`), where there is one.
    presets: of the models that are trained, the first that a model has.
    measures: the metrics. headline: (measure, score) that the table is sorted by, on the headline set.
    features: settings of feature extractors that need some, by registry name.
    default_models: choices of models; the first whose models are all registered is taken.
    minutes: training budget of each model. samples: images drawn for each caption.
    variety: (captions of the headline set, samples of each) for what is said of the samples of one caption.
    grid: (captions of each prompt set, samples of each) shown side by side; grid_captions: shown beside them.
    seed: of the sampling noise.
    """

    name: str
    protocol: str
    dataset: str
    image_size: int
    prompts: Sequence[PromptSet]
    measures: Sequence[Measure]
    headline: tuple[str, str]
    default_models: Sequence[Sequence[str]]
    minutes: float
    reference: int | Literal["all", "captions"]
    real: str = ""
    published: Sequence[Published] = ()
    fetch: str = ""
    presets: Sequence[str] = ("tiny",)
    data: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    samples: int = 1
    variety: tuple[int, int] = (16, 8)
    grid: tuple[int, int] = (4, 4)
    grid_captions: Sequence[str] = ()
    seed: int = 0

    @property
    def headline_set(self) -> PromptSet:
        (headline,) = (prompts for prompts in self.prompts if prompts.headline)
        return headline
