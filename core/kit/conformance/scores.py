"""Checks of feature extractors, metrics and benchmarks, on images of the default data set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from t2i.core.errors import UserError, nearest
from t2i.core.interfaces.scoring import (
    Benchmark,
    FeatureExtractor,
    ImageBatch,
    Metric,
    PairedExtractor,
    Scores,
)
from t2i.core.kit.conformance.outcome import Skipped, need
from t2i.core.kit.conformance.subject import Part
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset

COUNT, EACH = 12, 4
"""Number of captions, and of images for each caption, that a metric scores."""

CLOSE = 1e-6
"""Largest relative difference of a score between batch sizes."""


def _images(count: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return images of the default data set, uint8 (count, H, W, 3), with their captions."""
    data = open_dataset(
        registry().datasets.choose(registry().datasets.default().name, {}, "data set"), "val"
    )
    found = [data[index] for index in range(count)]
    return np.stack([example.image for example in found]), tuple(
        example.captions[0] for example in found
    )


def _bytes(images: np.ndarray) -> Tensor:
    """Convert images (B, H, W, 3) to a tensor (B, 3, H, W), still uint8."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def _said(captions: Sequence[str], dim: int) -> Tensor:
    """Make up text features (B, dim): random numbers that depend on the caption alone."""
    made = [np.random.default_rng(list(caption.encode())).normal(size=dim) for caption in captions]
    return torch.from_numpy(np.stack(made)).float()


def _nats(images: np.ndarray) -> Tensor:
    """Make up -log p (B,): a number that depends on the image alone."""
    return torch.from_numpy(images.astype(float).sum((1, 2, 3)) / 100)


def vectors(subject: Part) -> None:
    """It returns finite float32 features (B, dim), the same in any batch, and names its network.

    Args:
        subject: The feature extractor.

    Raises:
        Failed: The promise is broken.
        Skipped: Its weights are not available here.
    """
    try:
        extractor: FeatureExtractor = import_object(subject.spec.build)(subject.choice().config)
    except UserError as error:
        raise Skipped(str(error)) from None
    found, captions = _images(COUNT)
    images = _bytes(found)

    def seen(rows: slice) -> Tensor:
        if isinstance(extractor, PairedExtractor):
            return extractor.of_pairs(images[rows], captions[rows])
        features: Tensor = extractor(images[rows])
        return features

    extractor.eval()
    with torch.no_grad():
        together = seen(slice(COUNT))
        apart = torch.cat([seen(slice(i, i + 1)) for i in range(COUNT)])
    said = f"{together.dtype} {tuple(together.shape)}"
    need(
        together.shape == (COUNT, extractor.dim) and together.dtype == torch.float32,
        f"features are {said}",
    )
    need(bool(together.isfinite().all()), "there are values that are not finite")
    off = float((together - apart).abs().max())
    need(
        off <= 1e-4 * (1 + float(together.abs().max())),
        f"features of one image depend on its batch (by {off:.2g})",
    )
    need(
        bool(extractor.name and isinstance(extractor.weights_sha256, str)),
        "it does not say its name and weights",
    )


class MetricPart(Part):
    """A metric, and images of the default data set for it to score.

    Args:
        kind: "metrics".
        name: Name of the metric.
    """

    def metric(self) -> Metric:
        """Build the metric, with the default feature extractor if it has that setting.

        Returns:
            The metric, without any images.

        Raises:
            Skipped: It cannot be built here.
        """
        try:
            settings = (
                {"features": registry().features.default().name} if self.takes("features") else {}
            )
            metric: Metric = import_object(self.spec.build)(self.choice(**settings).config)
        except UserError as error:
            raise Skipped(str(error)) from None
        return metric

    @cached_property
    def _features(self) -> tuple[Tensor, Tensor]:
        """Features of the images, and of as many others as the reference."""
        wanted = self.metric().features
        name = (wanted or registry().features.default().name).partition("/")[0]
        extractor = registry().features.build(registry().features.choose(name, {}, "features"))
        with torch.no_grad():
            all_of_them = extractor.eval()(_bytes(_images(COUNT * EACH * 2)[0]))
        return all_of_them[: COUNT * EACH], all_of_them[COUNT * EACH :]

    def score(self, batch: int) -> tuple[Metric, Scores]:
        """Score COUNT * EACH images.

        Args:
            batch: Number of images in a batch.

        Returns:
            The metric and its scores.

        Raises:
            Skipped: The metric does not support these images, or needs more of them.
        """
        metric, (ours, real) = self.metric(), self._features
        images, captions = _images(COUNT * EACH)
        if metric.reference:
            metric.update_reference(real)
        if metric.training:
            metric.update_training(real)
        for start in range(0, len(images), batch):
            part = slice(start, start + batch)
            features = {} if metric.features is None else {metric.features: ours[part]}
            said = (
                {}
                if metric.features is None
                else {metric.features: _said(captions[part], ours.shape[1])}
            )
            groups = tuple(index // EACH for index in range(len(images)))
            nats = _nats(images[part]) if metric.likelihood else None
            try:
                metric.update(
                    ImageBatch(images[part], captions[part], groups[part], features, said, nats)
                )
            except UserError as error:
                raise Skipped(
                    f"it does not score images of the default data set: {error}"
                ) from None
        try:
            return metric, metric.compute()
        except UserError as error:
            raise Skipped(f"it needs more than {len(images)} images: {error}") from None


def scores(subject: MetricPart) -> None:
    """Its scores are finite, lie in sound intervals, and `better` says which way is better.

    Args:
        subject: The metric.

    Raises:
        Failed: The promise is broken.
        Skipped: It cannot be built, or cannot score these images.
    """
    metric, found = subject.score(COUNT * EACH)
    need(bool(found), "it gives no score")
    for name, value in found.items():
        need(math.isfinite(value), f"its score '{name}' is {value}")
    for name, (low, high) in metric.intervals().items():
        need(name in found and low <= high, f"its interval of '{name}' is ({low:.3g}, {high:.3g})")
    ways = set(metric.better.values())
    need(bool(ways) and ways <= {"higher", "lower", "none"}, f"`better` says {sorted(ways)}")
    need(bool(set(found) & set(metric.better)), "`better` names none of its scores")


def batches(subject: MetricPart) -> None:
    """The batch size changes no score by more than a millionth.

    Args:
        subject: The metric.

    Raises:
        Failed: The promise is broken.
        Skipped: It cannot be built, or cannot score these images.
    """
    (_, together), (_, apart) = subject.score(COUNT * EACH), subject.score(5)
    need(together.keys() == apart.keys(), "in other batches it gives other scores")
    for name, value in together.items():
        off = abs(apart[name] - value)
        need(
            off <= CLOSE * max(1.0, abs(value)),
            f"in batches of 5 its score '{name}' is {apart[name]}, else {value}",
        )


def complete(subject: Part) -> None:
    """Every protocol names registered data, splits, metrics and features, and a measured headline.

    Args:
        subject: The benchmark.

    Raises:
        Failed: The promise is broken.
    """
    for protocol in subject.spec.protocols:
        benchmark: Benchmark = import_object(subject.spec.build)(subject.choice().config, protocol)
        where = f"protocol '{protocol}'"
        said = (benchmark.name, benchmark.protocol)
        need(said == (subject.name, protocol), f"{where} calls itself {said}")
        _sound(benchmark, where)


def _sound(benchmark: Benchmark, where: str) -> None:
    """Check the names in one protocol. A name that is not registered raises UserError."""
    tables: dict[str, Any] = {
        kind: registry().table(kind) for kind in ("datasets", "metrics", "features")
    }
    splits = tables["datasets"][benchmark.dataset].splits
    for prompts in benchmark.prompts:
        hint = nearest(prompts.split, splits)
        need(
            prompts.split in splits,
            f"{where}: '{benchmark.dataset}' has no split '{prompts.split}'{hint}",
        )
    need(
        sum(prompts.headline for prompts in benchmark.prompts) == 1,
        f"{where}: one prompt set must be the headline",
    )
    for measure in benchmark.measures:
        choice = tables["metrics"].choose(measure.metric, measure.settings, "metric")
        metric: Metric = import_object(tables["metrics"][measure.metric].build)(choice.config)
        if metric.features:
            tables["features"][metric.features.partition("/")[0]]
    named = [measure.name for measure in benchmark.measures]
    need(
        benchmark.headline[0] in named,
        f"{where}: its headline '{benchmark.headline[0]}' is none of {named}",
    )
