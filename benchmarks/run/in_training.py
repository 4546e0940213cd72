"""Score samples of a model while it trains: the examiner that commands pass to the engine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch

from t2i.benchmarks.run.timed_sampling import images_of, resized
from t2i.benchmarks.score.available_measures import hindrance
from t2i.benchmarks.score.extraction import batches
from t2i.benchmarks.score.images.protocols import find_protocol, named_measure, title
from t2i.benchmarks.score.scorer import Scorer, build_metric
from t2i.core.engine.scores import Score
from t2i.core.errors import UserError, nearest
from t2i.core.interfaces.broken import SoundDataset
from t2i.core.interfaces.dataset import Dataset
from t2i.core.interfaces.scoring import Benchmark, ImageBatch, Metric, PromptSet
from t2i.core.io.terminal import note
from t2i.core.models.model import Model
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, open_dataset

ALWAYS = "fid"
"""The metric that is scored where a data set names none, on the default features."""

CAPTIONS = "clip-score"
"""The metric that is scored where the features that a data set names as judge are there."""


class Wanted:
    """A score that is made while training.

    Args:
        text: METRIC, METRIC.SCORE, METRIC:FEATURES or METRIC.SCORE:FEATURES.

    Attributes:
        measure: The metric with its settings.
        metric: The metric; it is only asked what it is.
        scores: The names of its scores that are wanted, those that are ranked.

    Raises:
        UserError: The metric, the score or the features are unknown, or the metric is not computed
            of one image of each caption.
    """

    def __init__(self, text: str) -> None:
        name, colon, features = text.partition(":")
        score = ""
        if name not in registry().metrics and "." in name:
            name, _, score = name.rpartition(".")
        self.measure = named_measure(name + colon + features, find_protocol(None), None)
        self.metric: Metric = build_metric(self.measure)
        ranked = [s for s, better in self.metric.better.items() if better != "none"]
        if score and score not in ranked:
            raise UserError(f"scores: '{text}': no score is named so{nearest(score, ranked)}")
        self.scores = tuple([score] if score else ranked)
        self._single = len(ranked) == 1
        metric = self.metric
        if metric.likelihood or metric.training or metric.scope == "variety" or not ranked:
            raise UserError(
                f"scores: '{text}' cannot be made while training, since it is not computed of one "
                "image of each caption; 't2i bench' makes it"
            )

    def name(self, score: str) -> str:
        """Name a score in the log.

        Args:
            score: One of `scores`.

        Returns:
            The name, as it may stand in the settings `scores` and `keep_best`.
        """
        if self._single:
            return self.measure.name
        metric, colon, features = self.measure.name.partition(":")
        return f"{metric}.{score}{colon}{features}"

    def title(self, score: str, count: int) -> str:
        """Name a score for people.

        Args:
            score: One of `scores`.
            count: Number of images.

        Returns:
            The title with the number of images, on which some scores depend.
        """
        usual = title(self.measure.metric, score, self.metric.features)
        return f"{self.metric.titles.get(score, usual)} of {count}"


class TrainingScores:
    """Scores samples of a run's model, always of the same held-out captions with the same noise.

    Networks and real images are loaded when the model is first scored.

    Args:
        config: The run's configuration.
        wanted: The scores.
        optional: Whether those are left out that cannot be made here, as their weights are missing.

    Attributes:
        names: Names of the scores, with those that are left out.
    """

    def __init__(self, config: RunConfig, wanted: list[Wanted], optional: bool = False) -> None:
        self._config, self._wanted, self._optional = config, wanted, optional
        self._built: Scorer | None = None
        self.names = tuple(each.name(score) for each in wanted for score in each.scores)

    @cached_property
    def _held(self) -> Dataset:
        """The data that is not trained on, if the data set has a split of such."""
        data = self._config.data
        split = "val" if "val" in registry().datasets[data.name].splits else "train"
        return SoundDataset(open_dataset(data, split), note)

    @cached_property
    def images(self) -> int:
        """The number of captions, each with one image."""
        return min(len(self._held), self._config.settings.score_images)

    @cached_property
    def _examples(self) -> list[tuple[np.ndarray, str]]:
        """Image and caption of the first held-out examples."""
        size = self._config.settings.image_size
        examples = (self._held[index] for index in range(self.images))
        return [(resized(one.image, size), one.captions[0]) for one in examples]

    def scores(self, model: Model) -> dict[str, Score]:
        """Score a model.

        Args:
            model: The model, in evaluation mode.

        Returns:
            The scores by name. Those that the captions do not claim are left out.

        Raises:
            UserError: There are too few held-out examples for a metric.
        """
        if self._optional:  # not before: it loads networks, which short runs do not need
            self._wanted = [one for one in self._wanted if hindrance(one.measure, {}) is None]
            self._optional = False
        if not self._wanted:
            return {}
        scorer = self._scorer(model)
        (prompts,) = scorer.benchmark.prompts
        values, intervals = scorer.score(scorer.metrics(prompts), self._sampled(model))
        found = {}
        for each in self._wanted:
            own = each.measure.name
            for score in each.scores:
                if score in values[own]:
                    found[each.name(score)] = Score(
                        values[own][score], intervals[own].get(score), len(self._examples),
                        each.metric.better[score] == "higher",
                        each.title(score, len(self._examples)),
                    )  # fmt: skip
        return found

    def _scorer(self, model: Model) -> Scorer:
        """Return the scorer, with the features of the real images. It is built once."""
        if self._built is None:
            scorer = Scorer(self._benchmark(), model.device)
            compared = scorer.extractors.compared
            real = [np.stack(part) for part in batches(image for image, _ in self._examples)]
            seen = [scorer.extractors(part, compared) for part in real]
            scorer.reference = {name: torch.cat([part[name] for part in seen]) for name in compared}
            self._built = scorer
        return self._built

    def _benchmark(self) -> Benchmark:
        """Describe the protocol as a benchmark, which is what a scorer takes."""
        measures = {each.measure.name: each.measure for each in self._wanted}
        prompts = PromptSet("held-out", "val", len(self._examples), headline=True)
        first = self._wanted[0]
        return Benchmark(
            "training", "", self._config.data.name, self._config.settings.image_size, [prompts],
            list(measures.values()), (first.measure.name, first.scores[0]), (), 0.0, "captions",
        )  # fmt: skip

    def _sampled(self, model: Model) -> Iterator[ImageBatch]:
        captions = [caption for _, caption in self._examples]
        keys = [(number, 0) for number in range(len(captions))]
        for batch in model.stream(captions, seed=self._config.settings.seed, keys=keys):
            yield images_of(batch, captions)


def named_scores(config: RunConfig) -> list[Wanted]:
    """List the scores that a run's settings name.

    Args:
        config: The run's configuration; its setting `scores` names the scores.

    Returns:
        The scores. Empty if none is named.

    Raises:
        UserError: A score is unknown, or cannot be made while training.
    """
    return [Wanted(text) for text in config.settings.scores or ()]


def training_scores(config: RunConfig) -> TrainingScores | None:
    """Make what scores a run's model while it trains: an `Examining` of the engine.

    Args:
        config: The run's configuration; its setting `scores` names the scores.

    Returns:
        The examiner. None: nothing is scored.

    Raises:
        UserError: A score is unknown, cannot be made while training, or its weights are missing.
    """
    settings = config.settings
    if settings.score_every is None and settings.score_seconds is None:
        return None
    if settings.scores is None:
        usual = _usual(config)
        return TrainingScores(config, usual, optional=True) if usual else None
    wanted = named_scores(config)
    for text, each in zip(settings.scores, wanted, strict=True):
        if reason := hindrance(each.measure, {}):
            raise UserError(f"scores: '{text}': {reason}")
    return TrainingScores(config, wanted) if wanted else None


def _usual(config: RunConfig) -> list[Wanted]:
    """Return the scores that suit the data set."""
    spec = registry().datasets[config.data.name]
    default = next((f.name for f in registry().features if f.default), "")
    texts = list(spec.scores) or ([f"{ALWAYS}:{default}"] if default else [])
    if spec.judge in registry().features:
        texts.append(f"{CAPTIONS}:{spec.judge}")
    return [Wanted(text) for text in texts]
