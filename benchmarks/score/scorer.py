"""Score streams of images: each extractor runs once for a batch, however many metrics read it."""

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
    """Computes the scores of a benchmark.

    Args:
        benchmark: The benchmark.
        device: Where the feature extractors run.

    Attributes:
        measures: The measures by name.
        prototypes: An unused metric of each measure, by the measure's name.
        extractors: The feature extractors of all metrics.
        reference: Features of the reference images by name. Must be set before `metrics` is called,
            if a metric compares with real images.
        training: Features of the training images by name. Must be set likewise, if a metric
            compares with training images.

    Raises:
        UserError: A metric or extractor is unknown, or weights are missing.
    """

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
        self.training: Mapping[str, Tensor] = {}
        self._informed: dict[str, Metric] = {}

    def names(self, prompts: PromptSet | None, captioned_only: bool = False) -> list[str]:
        """List the measures of a set of images. Those of a likelihood are none of them.

        Args:
            prompts: The prompt set. None: the set `VARIETY` of many images of a few captions.
            captioned_only: Whether to list only measures that depend on which caption belongs to
                which image.

        Returns:
            Names of the measures.
        """

        def wanted(metric: Metric) -> bool:
            if metric.likelihood:
                return False
            if captioned_only and not metric.captioned:
                return False
            if prompts is None:
                return metric.scope == "variety"
            return metric.scope == "every" or (metric.scope == "headline" and prompts.headline)

        return [name for name, metric in self.prototypes.items() if wanted(metric)]

    def metrics(self, prompts: PromptSet | None, captioned_only: bool = False) -> dict[str, Metric]:
        """Make new metrics for the measures of a set of images.

        Args:
            prompts: As in `names`.
            captioned_only: As in `names`.

        Returns:
            The metrics by measure. Those that compare with real images have the reference.
        """
        names = self.names(prompts, captioned_only)
        return {
            name: self._with_reference(name, build_metric(self.measures[name])) for name in names
        }

    def _with_reference(self, name: str, metric: Metric) -> Metric:
        """Give a metric the reference, if it compares with real images.

        The first metric of each measure is kept, so that later ones share what it computes from the
        reference.
        """
        if metric.reference and metric.features:
            first = self._informed.setdefault(name, metric)
            if first is metric or not metric.share_reference(first):
                for features in torch.split(self.reference[metric.features], 1024):
                    metric.update_reference(features)
                for features in (
                    torch.split(self.training[metric.features], 1024) if metric.training else ()
                ):
                    metric.update_training(features)
        return metric

    def training_features(self) -> list[str]:
        """List the features that training images are compared by.

        Returns:
            Their names; none if no metric compares with training images.
        """
        return sorted({str(m.features) for m in self.prototypes.values() if m.training})

    def look(self, images: ImageBatch, names: Iterable[str]) -> ImageBatch:
        """Add features to a batch.

        Args:
            images: The batch, with images.
            names: Measures whose features are needed.

        Returns:
            The batch with features of its images and, if a measure reads text, of its captions.
        """
        read = [metric for name in names if (metric := self.prototypes[name]).features]
        return replace(
            images,
            features=self.extractors(
                images.images, {str(metric.features) for metric in read}, images.captions
            ),
            text_features=self.extractors.of_text(
                images.captions, {str(metric.features) for metric in read if metric.text}
            ),
        )

    def score(
        self, metrics: dict[str, Metric], stream: Iterable[ImageBatch]
    ) -> tuple[SetScores, dict[str, Intervals]]:
        """Extract features of images, and score them.

        Features are extracted in batches of one size, however the images were sampled. Images are
        not kept.

        Args:
            metrics: New metrics by measure, from `metrics`.
            stream: The images, without features.

        Returns:
            The scores, and their 95 % confidence intervals, both by measure.

        Raises:
            UserError: A metric needs more images.
        """
        return self.score_with_intervals(
            metrics, (self.look(images, metrics) for images in rebatched(stream))
        )

    def score_with_intervals(
        self, metrics: dict[str, Metric], stream: Iterable[ImageBatch]
    ) -> tuple[SetScores, dict[str, Intervals]]:
        """Score images whose features have been extracted.

        Args:
            metrics: New metrics by measure, from `metrics`.
            stream: The images, with features.

        Returns:
            The scores, and their 95 % confidence intervals, both by measure.

        Raises:
            UserError: A metric needs more images.
        """
        for images in stream:
            for metric in metrics.values():
                metric.update(images)
        scores = {name: metric.compute() for name, metric in metrics.items()}
        return scores, {name: metric.intervals() for name, metric in metrics.items()}

    def protocol(self) -> dict[str, Any]:
        """Describe what the scores depend on besides the images.

        Returns:
            Metric, settings, extractor and versions, by measure.
        """
        return {name: self._describe(name, metric) for name, metric in self.prototypes.items()}

    def own_judges(self, named: Iterable[str]) -> list[tuple[str, str]]:
        """Find the measures that use a network which a model was trained with.

        Such a score says little, because the model was trained to please that network.

        Args:
            named: Texts from the model's settings, some of which may mean a network.

        Returns:
            (measure, network) for each such network, named as in the model's settings.
        """
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
        """Describe what the scores of one measure depend on."""
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
        """Make columns for some scores on all sets that they are computed on.

        Args:
            pick: Returns the scores of a measure to make columns for, as score -> title.

        Returns:
            The columns. Titles of sets other than the headline end with the set's name.
        """
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
        """Make the columns of the table.

        Returns:
            A column for each score that its measure shows (by default all of its scores), on each
            set.
        """
        return self.columns(
            lambda m: dict(m.shown) or {score: score for score in self.prototypes[m.name].better}
        )

    def bars(self) -> list[Column]:
        """Make the columns of the report's bars.

        Returns:
            A column for each score that is shown as a bar, on the headline set.
        """
        every = self.columns(lambda measure: {score: score for score in measure.bars})
        return [
            replace(c, title=c.score) for c in every if c.set == self.benchmark.headline_set.name
        ]

    def headline(self) -> Column:
        """Find the column that the ranking is sorted by.

        Returns:
            The column of the benchmark's headline score.

        Raises:
            ValueError: The benchmark names a score that the table lacks.
        """
        main = (VARIETY, self.benchmark.headline_set.name)
        for column in self.table_columns():
            if (column.measure, column.score) == tuple(
                self.benchmark.headline
            ) and column.set in main:
                return column
        raise ValueError(
            f"benchmark '{self.benchmark.name}': "
            f"its table has no headline {self.benchmark.headline}"
        )


def build_metric(measure: Measure) -> Metric:
    """Build the metric of a measure.

    Args:
        measure: The measure.

    Returns:
        The metric, which has seen no images yet.

    Raises:
        UserError: The metric is unknown, or its settings are invalid.
    """
    choice = registry().metrics.choose(measure.metric, measure.settings, "metric")
    metric: Metric = import_object(registry().metrics[choice.name].build)(choice.config)
    return metric
