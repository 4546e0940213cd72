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
from t2i.core.interfaces.scoring import Benchmark, FeatureExtractor, ImageBatch, Metric, Scores
from t2i.core.kit.conformance.outcome import Skipped, need
from t2i.core.kit.conformance.subject import Part
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset

COUNT, EACH = 12, 4
CLOSE = 1e-6


def _images(count: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """uint8 (count, 32, 32, 3) with their captions."""
    data = open_dataset(
        registry().datasets.choose(registry().datasets.default().name, {}, "data set"), "val"
    )
    found = [data[index] for index in range(count)]
    return np.stack([example.image for example in found]), tuple(
        example.captions[0] for example in found
    )


def _bytes(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def _said(captions: Sequence[str], dim: int) -> Tensor:
    """(B, dim) what an extractor might make of captions: numbers that hang on the caption alone."""
    made = [np.random.default_rng(list(caption.encode())).normal(size=dim) for caption in captions]
    return torch.from_numpy(np.stack(made)).float()


def vectors(subject: Part) -> None:
    """An extractor gives float32 (B, dim), finite, the same in any batch, and says which network it is."""
    try:
        extractor: FeatureExtractor = import_object(subject.spec.build)(subject.choice().config)
    except UserError as error:
        raise Skipped(str(error)) from None
    images = _bytes(_images(COUNT)[0])
    with torch.no_grad():
        together = extractor.eval()(images)
        apart = torch.cat([extractor(images[i : i + 1]) for i in range(COUNT)])
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
    """A metric, and images for it to score: real ones, several of a caption."""

    def metric(self) -> Metric:
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
        """Of the images, and of others to compare them with."""
        wanted = self.metric().features
        name = (wanted or registry().features.default().name).partition("/")[0]
        extractor = registry().features.build(registry().features.choose(name, {}, "features"))
        with torch.no_grad():
            all_of_them = extractor.eval()(_bytes(_images(COUNT * EACH * 2)[0]))
        return all_of_them[: COUNT * EACH], all_of_them[COUNT * EACH :]

    def score(self, batch: int) -> tuple[Metric, Scores]:
        """Scores of COUNT * EACH images, given to it in batches."""
        metric, (ours, real) = self.metric(), self._features
        images, captions = _images(COUNT * EACH)
        if metric.reference:
            metric.update_reference(real)
        for start in range(0, len(images), batch):
            part = slice(start, start + batch)
            features = {} if metric.features is None else {metric.features: ours[part]}
            said = (
                {}
                if metric.features is None
                else {metric.features: _said(captions[part], ours.shape[1])}
            )
            groups = tuple(index // EACH for index in range(len(images)))
            try:
                metric.update(
                    ImageBatch(images[part], captions[part], groups[part], features, said)
                )
            except UserError as error:
                raise Skipped(
                    f"it does not score images of the default data set: {error}"
                ) from None
        try:
            return metric, metric.compute()
        except UserError as error:
            raise Skipped(f"it wants more than {len(images)} images: {error}") from None


def scores(subject: MetricPart) -> None:
    """Its scores are finite numbers, and for each it says which way is better."""
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
    """The size of the batches in which images come changes no score by more than a millionth."""
    (_, together), (_, apart) = subject.score(COUNT * EACH), subject.score(5)
    need(together.keys() == apart.keys(), "in other batches it gives other scores")
    for name, value in together.items():
        off = abs(apart[name] - value)
        need(
            off <= CLOSE * max(1.0, abs(value)),
            f"in batches of 5 its score '{name}' is {apart[name]}, else {value}",
        )


def complete(subject: Part) -> None:
    """Every protocol names a data set, splits, metrics and features that are there, and a headline that is measured."""
    for protocol in subject.spec.protocols:
        benchmark: Benchmark = import_object(subject.spec.build)(subject.choice().config, protocol)
        where = f"protocol '{protocol}'"
        said = (benchmark.name, benchmark.protocol)
        need(said == (subject.name, protocol), f"{where} calls itself {said}")
        _sound(benchmark, where)


def _sound(benchmark: Benchmark, where: str) -> None:
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
