"""The base classes of metrics and feature extractors, and a benchmark's description as data."""

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
"""Which images a metric scores.

"every": the images of each prompt set. "headline": those of the headline set. "variety": many
samples of each of a few captions of the headline set.
"""

Scores = dict[str, float]
"""Scores by name."""

Intervals = dict[str, tuple[float, float]]
"""Confidence intervals (low, high) by the name of the score."""


def proportion_interval(right: float, of: int) -> tuple[float, float]:
    """Compute the 95 % confidence interval of a proportion.

    Source: Wilson 1927, eq. 1.

    Args:
        right: Number of successes among the observations. It may be a fraction.
        of: Number of independent observations, at least 1.

    Returns:
        (low, high), in percent.
    """
    z = 1.959964
    p, shrink = right / of, 1 + z * z / of
    centre = (p + z * z / (2 * of)) / shrink
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of)) / shrink
    low, high = 100 * (centre - half), 100 * (centre + half)
    # The ends are exact here; the formula would round.
    return (low if right > 0 else 0.0), (high if right < of else 100.0)


class FeatureExtractor(nn.Module, ABC):
    """The base class of feature extractors: frozen networks that turn images into feature vectors.

    Attributes:
        name: Registry name. It is part of the protocol of every score that is made with the
            extractor.
        weights_sha256: SHA-256 of the weights. It is part of the protocol too.
        dim: Length D of the feature vectors.
        layers: Named parts of the vector, for networks of which several layers are compared. A
            metric with the features "inception/pool" gets the part "pool" of the extractor
            "inception". The extractor runs once for all parts.
        networks: Names under which the network is published. A model whose settings contain one of
            them was trained with the network that scores it; reports mark its scores.
    """

    name: str
    weights_sha256: str
    dim: int
    layers: Mapping[str, slice] = {}
    networks: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Compute feature vectors of images. The extractor resizes the images itself.

        Args:
            images: Images, uint8 (B, 3, H, W).

        Returns:
            Features, float32 (B, D).
        """

    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """Compute feature vectors of captions, in the same space as those of images.

        Optional: only networks such as CLIP can encode text.

        Args:
            captions: B captions.

        Returns:
            Features, float32 (B, D).

        Raises:
            UserError: The network has no text encoder.
        """
        raise UserError(
            f"features '{self.name}' have no text encoder: a score of captions needs CLIP features"
        )

    def is_named(self, text: str) -> bool:
        """Tell whether a value in a model's settings names this network.

        Args:
            text: A text in the settings, such as a name or a folder.

        Returns:
            True if it names this network. By default: if it is one of `networks`.
        """
        return text in self.networks


class PairedExtractor(FeatureExtractor):
    """The base class of networks that read an image together with its caption.

    Only metrics that read captions can use such features.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Refuse images without captions.

        Args:
            images: Ignored.

        Raises:
            UserError: Always.
        """
        raise UserError(
            f"features '{self.name}' read each image with its caption: use them in a metric of "
            "captions, not to compare sets of images"
        )

    @abstractmethod
    def of_pairs(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """Compute feature vectors of images, each read together with its caption.

        Args:
            images: Images, uint8 (B, 3, H, W).
            captions: B captions.

        Returns:
            Features, float32 (B, D).
        """


@dataclass(frozen=True)
class ImageBatch:
    """A batch of B images to score.

    Args:
        images: Images, uint8 (B, H, W, 3). Empty if all metrics read features, since only features
            are kept then.
        captions: One caption for each image.
        groups: One number for each image, equal for the samples of one prompt.
        features: Features of the images, float32 (B, D) on the CPU, by `Metric.features`. Each
            extractor runs once, however many metrics read it.
        text_features: Features of the captions, float32 (B, D), by the same names, for metrics with
            `Metric.text`.
        nats: -log p of each image under the model that is scored, float64 (B,), for metrics with
            `Metric.likelihood`. None: it was not computed.
        dims: Number of values of an image that `nats` is of. None: those of the image.
    """

    images: np.ndarray
    captions: tuple[str, ...]
    groups: tuple[int, ...]
    features: Mapping[str, Tensor] = field(default_factory=dict)
    text_features: Mapping[str, Tensor] = field(default_factory=dict)
    nats: Tensor | None = None
    dims: int | None = None


class Metric(ABC):
    """The base class of metrics: a metric computes scores of a set of images.

    One instance scores one set once: `update` is called for each batch, then `compute`.

    Attributes:
        better: For each score that `compute` returns: "higher", "lower", or "none" (shown, but not
            ranked).
        titles: Names of scores for people, such as "all right %". Others have their own names.
        features: Registry name of the extractor whose features the metric reads, with "/layer" for
            a part of them. None: it reads the images.
        text: Whether the metric also reads the extractor's features of the captions.
        reference: Whether `update_reference` must be called with features of real images first.
        training: Whether `update_training` must be called with features of the training images
            first.
        scope: Which images the metric scores.
        captioned: Whether a score depends on which caption belongs to which image. Such a score
            gets a floor: the score of real images with the wrong captions.
        likelihood: Whether the metric reads the likelihood of real images under a model
            (`ImageBatch.nats`) and not images of the model. It has the setting `images`, the number
            of them, and may have `settings`, those of the likelihoods.
        networks: Names of the published networks that the metric uses beside its extractor. A model
            whose settings contain one of them was trained with the network that scores it; reports
            mark its scores.
    """

    better: Mapping[str, str]
    titles: Mapping[str, str] = {}
    features: str | None = None
    text: bool = False
    reference: bool = False
    training: bool = False
    scope: Scope = "every"
    captioned: bool = True
    likelihood: bool = False
    networks: tuple[str, ...] = ()

    def update_reference(self, features: Tensor) -> None:  # noqa: B027
        """Add a batch of the reference set.

        Args:
            features: Features of real images, (B, D).
        """

    def update_training(self, features: Tensor) -> None:  # noqa: B027
        """Add a batch of the images that the benchmark's models are trained on.

        Args:
            features: Features of training images, (B, D).
        """

    def share_reference(self, other: Self) -> bool:
        """Copy the reference of another instance, with all that was computed from it.

        The reference is then processed once for all rows of a benchmark.

        Args:
            other: An instance with the same settings, which has its reference.

        Returns:
            True if it was copied. False (the default): `update_reference` is called instead.
        """
        return False

    @abstractmethod
    def update(self, images: ImageBatch) -> None:
        """Add a batch of images to score.

        Args:
            images: The images, with the features that the metric reads.
        """

    @abstractmethod
    def compute(self) -> Scores:
        """Compute the scores of all images.

        Returns:
            The scores by name. Percentages are from 0 to 100; other scores have the metric's own
            unit.
        """

    def intervals(self) -> Intervals:
        """Compute confidence intervals. Called after `compute`.

        Returns:
            95 % confidence intervals, for the scores that have one. By default none.
        """
        return {}

    def protocol(self) -> dict[str, Any]:
        """Describe what the scores depend on beside the images, the extractor and the settings.

        Returns:
            JSON values by name, such as versions and thresholds. By default none.
        """
        return {}

    def warnings(self, scores: Scores, real: Scores | None) -> list[str]:
        """Return warnings about the scores for the reader of the report.

        Args:
            scores: Scores of a model.
            real: Scores of real images. None: the data set has none to compare with.

        Returns:
            Warnings, one line each. By default none.
        """
        return []


@dataclass(frozen=True)
class PromptSet:
    """The captions that a benchmark samples images for.

    By default these are the first captions of the first `count` examples of a split.

    Args:
        name: Name of the set.
        split: Split of the data set.
        count: Number of captions. 0: one of each example, at most `most`.
        data: Settings of the data set that replace the benchmark's.
        headline: Whether this is the headline set. A benchmark has exactly one.
        about: One line for the report.
        select: Key of a hash that chooses the examples, and one caption of each, instead
            (`benchmarks/run/caption_choice.py`). The choice does not depend on the data set's
            order. "": no hash.
        most: Largest number of captions, if `count` is 0.
        few: The set is left out if the headline set has at least so many captions. 0: never.
    """

    name: str
    split: str
    count: int
    data: Mapping[str, Any] = field(default_factory=dict)
    headline: bool = False
    about: str = ""
    select: str = ""
    most: int = 1000
    few: int = 0


@dataclass(frozen=True)
class Published:
    """Scores of a model from the literature.

    Reports show them apart from their own scores and never rank them.

    Args:
        model: Name of the model.
        scores: Scores by the title of the table's column.
        protocol: What was scored, as far as the source says.
        source: Who published the scores, and where.
    """

    model: str
    scores: Mapping[str, float]
    protocol: str
    source: str


@dataclass(frozen=True)
class Measure:
    """A metric with its settings, as a benchmark uses it.

    Args:
        metric: Registry name of the metric.
        settings: Settings of the metric.
        label: Name in the results. "": the metric's name.
        shown: Titles of the table's columns, by score. Empty: a column for every score, titled by
            its name.
        bars: Scores that the report plots side by side, such as the accuracy of each attribute.
        optional: Whether the measure is left out, with a note, if it cannot be made (its weights
            are missing, say).
    """

    metric: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    shown: Mapping[str, str] = field(default_factory=dict)
    bars: tuple[str, ...] = ()
    optional: bool = False

    @property
    def name(self) -> str:
        """The name in the results: `label`, or the metric's name."""
        return self.label or self.metric


@dataclass(frozen=True)
class Benchmark:
    """A benchmark under one protocol: everything that its scores depend on, as data.

    Args:
        name: Registry name.
        protocol: Name of the protocol.
        dataset: Registry name of the data set.
        image_size: Height and width of the images, pixels. 0: chosen by the size of the images
            (of a benchmark with `BenchmarkSpec.any_data`).
        prompts: Sets of captions, exactly one of them with `headline`.
        measures: The metrics with their settings.
        headline: (measure, score) by which the table is sorted, on the headline set.
        spare_headline: The same, used if the measure of `headline` is left out. None: there is
            none.
        default_models: Groups of models. The first group whose models are all registered is scored
            if the user names no models.
        minutes: Training budget of each model, minutes.
        reference: Which real images of the headline set are the reference: the first so many, "all"
            images of its split, or those that belong to its "captions".
        real: Split that the row of real images comes from. "": the best there is
            (`benchmarks/run/caption_sets.py`).
        published: Scores from the literature.
        fetch: Name of the download of the data set (`t2i fetch NAME`). "": there is none.
        presets: Presets for training, by preference. A model is trained with the first of them that
            it has.
        data: Settings of the data set.
        train: Settings of the data set for training, which replace those in `data`.
        features: Settings of feature extractors, by registry name.
        samples: Number of images to sample for each caption.
        whole: Number of examples of the headline set's split, all of which must be there. 0: any
            number is enough that has the captions.
        variety: (captions of the headline set, samples of each) for metrics with the scope
            "variety".
        grid: (captions of each prompt set, samples of each) that the report shows side by side.
        grid_captions: More captions for the grid, without real images.
        seed: Seed of the sampling noise.
        marks: Headline scores that speed runs (`t2i bench speedrun`) are timed to, by the family of
            the model, from the easiest on; "" for families that have no entry. No score depends on
            them.
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
    spare_headline: tuple[str, str] | None = None
    published: Sequence[Published] = ()
    fetch: str = ""
    presets: Sequence[str] = ("tiny",)
    data: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    samples: int = 1
    whole: int = 0
    variety: tuple[int, int] = (16, 8)
    grid: tuple[int, int] = (4, 4)
    grid_captions: Sequence[str] = ()
    seed: int = 0
    marks: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def headline_set(self) -> PromptSet:
        """The prompt set with `headline`."""
        (headline,) = (prompts for prompts in self.prompts if prompts.headline)
        return headline

    def marks_of(self, family: str) -> tuple[float, ...]:
        """Return the headline scores that speed runs of a family are timed to.

        Args:
            family: Registry name of the model's family.

        Returns:
            The scores, from the easiest on. Empty if the benchmark has none.
        """
        return tuple(self.marks.get(family, self.marks.get("", ())))
