"""Streams images through metrics: each feature extractor runs once a batch, whoever reads its features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from t2i.benchmarks.results import VARIETY, Column, SetScores
from t2i.benchmarks.score.extraction import Extractors, rebatched
from t2i.core.interfaces.scoring import Benchmark, ImageBatch, Intervals, Measure, Metric, PromptSet
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry


class Scorer:
    """The metrics of a benchmark. `prototypes` holds one idle instance of each, by the measure's name."""

    def __init__(self, benchmark: Benchmark, device: torch.device | str) -> None:
        self.benchmark = benchmark
        self.measures = {measure.name: measure for measure in benchmark.measures}
        self.prototypes = {name: build_metric(measure) for name, measure in self.measures.items()}
        read = [metric for metric in self.prototypes.values() if metric.features]
        self.extractors = Extractors(
            [str(metric.features) for metric in read], device, benchmark.features,
            compared=[str(metric.features) for metric in read if metric.reference],
        )  # fmt: skip
        self.reference: Mapping[str, Tensor] = {}
        self._informed: dict[str, Metric] = {}

    def names(self, prompts: PromptSet | None, captioned_only: bool = False) -> list[str]:
        """The measures for the images of a prompt set, or (None) for many images of a few captions."""

        def wanted(metric: Metric) -> bool:
            if captioned_only and not metric.captioned:
                return False
            if prompts is None:
                return metric.scope == "variety"
            return metric.scope == "every" or (metric.scope == "headline" and prompts.headline)

        return [name for name, metric in self.prototypes.items() if wanted(metric)]

    def metrics(self, prompts: PromptSet | None, captioned_only: bool = False) -> dict[str, Metric]:
        """Fresh metrics for them."""
        names = self.names(prompts, captioned_only)
        return {
            name: self._with_reference(name, build_metric(self.measures[name])) for name in names
        }

    def _with_reference(self, name: str, metric: Metric) -> Metric:
        """The metric, told of the real images. The first of each measure is kept, for the later ones to share what it
        makes of them."""
        if metric.reference and metric.features:
            first = self._informed.setdefault(name, metric)
            if first is metric or not metric.share_reference(first):
                for features in torch.split(self.reference[metric.features], 1024):
                    metric.update_reference(features)
        return metric

    def look(self, images: ImageBatch, names: Iterable[str]) -> ImageBatch:
        """A batch with the features that these measures read."""
        read = [metric for name in names if (metric := self.prototypes[name]).features]
        return replace(
            images,
            features=self.extractors(images.images, {str(metric.features) for metric in read}),
            text_features=self.extractors.of_text(
                images.captions, {str(metric.features) for metric in read if metric.text}
            ),
        )

    def score(
        self, metrics: dict[str, Metric], stream: Iterable[ImageBatch]
    ) -> tuple[SetScores, dict[str, Intervals]]:
        """Scores and intervals by measure. Images are dropped as soon as their features are taken, always so many at
        once, whatever batches they were drawn in."""
        return self.score_with_intervals(
            metrics, (self.look(images, metrics) for images in rebatched(stream))
        )

    def score_with_intervals(
        self, metrics: dict[str, Metric], stream: Iterable[ImageBatch]
    ) -> tuple[SetScores, dict[str, Intervals]]:
        """The same of images whose features have been taken."""
        for images in stream:
            for metric in metrics.values():
                metric.update(images)
        scores = {name: metric.compute() for name, metric in metrics.items()}
        return scores, {name: metric.intervals() for name, metric in metrics.items()}

    def protocol(self) -> dict[str, Any]:
        """What each measure's scores depend on beside the images."""
        return {name: self._describe(name, metric) for name, metric in self.prototypes.items()}

    def own_judges(self, named: Iterable[str]) -> list[tuple[str, str]]:
        """(measure, network) for each network that a measure looks through and that one of the texts `named`, from a
        model's settings, means: a score given by a network that the model was trained against says little."""
        texts = sorted(set(named))
        found = []
        for name, metric in self.prototypes.items():
            published = [network for network in metric.networks if network in texts]
            found += [(name, network) for network in published]
            found += [
                (name, text)
                for text in self.extractors.meant(metric.features, texts)
                if text not in published
            ]
        return found

    def _describe(self, name: str, metric: Metric) -> dict[str, Any]:
        settings = registry().metrics.choose(
            self.measures[name].metric, self.measures[name].settings, "metric"
        )
        described = {
            "metric": settings.name,
            "settings": settings.config.model_dump(mode="json"),
            **metric.protocol(),
        }
        return (
            {**described, "extractor": self.extractors.describe(metric.features)}
            if metric.features
            else described
        )

    def columns(self, pick: Callable[[Measure], dict[str, str]]) -> list[Column]:
        """A column for each score that `pick` (score -> title) takes of a measure, on each set that it scores."""
        columns = []
        for name, metric in self.prototypes.items():
            sets = [p.name for p in self.benchmark.prompts if metric.scope == "every" or p.headline]
            for score, title in pick(self.measures[name]).items():
                for where in [VARIETY] if metric.scope == "variety" else sets:
                    headline = where in (VARIETY, self.benchmark.headline_set.name)
                    full = title if headline else f"{title}, {where}"
                    columns.append(
                        Column(where, name, score, full, metric.better.get(score, "none"))
                    )
        return columns

    def table_columns(self) -> list[Column]:
        return self.columns(
            lambda m: dict(m.shown) or {score: score for score in self.prototypes[m.name].better}
        )

    def bars(self) -> list[Column]:
        """The scores drawn side by side, on the headline set."""
        every = self.columns(lambda measure: {score: score for score in measure.bars})
        return [
            replace(c, title=c.score) for c in every if c.set == self.benchmark.headline_set.name
        ]

    def headline(self) -> Column:
        """The column that the table is sorted by. ValueError if the benchmark names one that the table lacks."""
        main = (VARIETY, self.benchmark.headline_set.name)
        for column in self.table_columns():
            if (column.measure, column.score) == tuple(
                self.benchmark.headline
            ) and column.set in main:
                return column
        raise ValueError(
            f"benchmark '{self.benchmark.name}': its table has no headline {self.benchmark.headline}"
        )


def build_metric(measure: Measure) -> Metric:
    """A metric with its settings checked."""
    choice = registry().metrics.choose(measure.metric, measure.settings, "metric")
    metric: Metric = import_object(registry().metrics[choice.name].build)(choice.config)
    return metric
