"""Score a model in training: the headline score of a benchmark, of few captions or of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import torch

from t2i.benchmarks.results import Column
from t2i.benchmarks.run.caption_sets import reference_of
from t2i.benchmarks.run.protocol_fit import caption_sets
from t2i.benchmarks.run.timed_sampling import images_of
from t2i.benchmarks.score.available_measures import with_what_is_there
from t2i.benchmarks.score.extraction import fingerprint, reference_features
from t2i.benchmarks.score.scorer import Scorer
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import Benchmark, ImageBatch
from t2i.core.models.model import Model

TRIAL = 100
"""Captions of the trial that decides whether all captions are scored."""


@dataclass(frozen=True)
class Verdict:
    """A headline score.

    Args:
        score: The score.
        interval: 95 % confidence interval (low, high). None: the metric gives none.
        captions: Number of captions that were scored.
    """

    score: float
    interval: tuple[float, float] | None
    captions: int

    def may_be(self, target: float, higher: bool) -> bool:
        """Tell whether the score of all captions may reach a mark.

        Args:
            target: The mark.
            higher: Whether higher scores are better.

        Returns:
            True if the mark is not beyond the confidence interval.
        """
        low, high = self.interval or (self.score, self.score)
        return high >= target if higher else low <= target


class Judge:
    """Computes the headline score of models, of the same captions with the same noise.

    Args:
        benchmark: The benchmark. Its other measures are left out.
        folder: Folder of its data set. None: it needs none.
        device: Device of the feature extractors.

    Attributes:
        captions: The headline captions.
        column: The column of the score.

    Raises:
        UserError: Something is missing, or the headline is no score of the headline captions.
    """

    def __init__(self, benchmark: Benchmark, folder: str | None, device: torch.device) -> None:
        alone = replace(benchmark, prompts=[benchmark.headline_set])
        (self.captions,) = caption_sets(alone, folder)
        self.benchmark = _headline_only(alone)
        self._scorer = Scorer(self.benchmark, device)
        self.column: Column = self._scorer.headline()
        metric = self._scorer.prototypes[self.column.measure]
        ranked = self.column.better in ("higher", "lower")
        if self.column.set != self.captions.prompts.name or metric.training or not ranked:
            raise UserError(
                f"benchmark '{benchmark.name}': its headline '{self.column.title}' does not rank "
                "the images of its captions alone; name another --benchmark"
            )
        if metric.reference:
            reference = reference_of(self.benchmark, self.captions)
            self._scorer.reference = reference_features(
                reference.data, reference.count, self._scorer.extractors
            )
        # A distance between sets depends on their size: a part of the captions foretells nothing.
        count = len(self.captions.captions)
        self.trial = count if metric.reference else min(TRIAL, count)

    @property
    def higher(self) -> bool:
        """Whether higher scores are better."""
        return self.column.better == "higher"

    def protocol(self) -> dict[str, Any]:
        """Describe what the scores depend on besides the model.

        Returns:
            Captions, noise and measure, as JSON.
        """
        return {
            "benchmark": self.benchmark.name, "protocol": self.benchmark.protocol,
            "captions": len(self.captions.captions), "trial": self.trial,
            "captions_sha256": fingerprint(self.captions.captions),
            "samples_per_caption": self.benchmark.samples, "sampling_seed": self.benchmark.seed,
            "image_size": self.benchmark.image_size, "measures": self._scorer.protocol(),
        }  # fmt: skip

    def score(self, model: Model, target: float | None) -> Iterator[Verdict]:
        """Score the first captions, then all of them if these may reach a mark.

        Args:
            model: The model, in evaluation mode.
            target: The mark. None: all captions are scored.

        Yields:
            The score of the trial, unless all captions are scored anyway; then, if the trial may
            reach the mark, the score of all captions.
        """
        count, first = len(self.captions.captions), self.trial
        few: list[ImageBatch] = []
        if target is not None and first < count:
            few = list(self._images(model, range(first)))
            trial = self._verdict(few, first)
            yield trial
            if not trial.may_be(target, self.higher):
                return
        rest = self._images(model, range(first if few else 0, count))
        yield self._verdict(chain(few, rest), count)

    def _verdict(self, images: Iterable[ImageBatch], count: int) -> Verdict:
        """Score images of the first captions."""
        metrics = self._scorer.metrics(self.captions.prompts)
        scores, intervals = self._scorer.score(metrics, images)
        measure, name = self.column.measure, self.column.score
        return Verdict(scores[measure][name], intervals[measure].get(name), count)

    def _images(self, model: Model, captions: range) -> Iterator[ImageBatch]:
        """Sample the images of some captions. Their noise depends on the caption's number."""
        texts, size = self.captions.captions, self.benchmark.image_size
        samples = range(self.benchmark.samples)
        keys = [(caption, sample) for caption in captions for sample in samples]
        for batch in model.stream(texts, seed=self.benchmark.seed, keys=keys):
            yield images_of(batch, texts, size)


def _headline_only(benchmark: Benchmark) -> Benchmark:
    """Leave out all measures but that of the headline, or of the spare one if it is missing."""
    named = [benchmark.headline, *([benchmark.spare_headline] if benchmark.spare_headline else [])]
    names = {measure for measure, _ in named}
    two = replace(benchmark, measures=[m for m in benchmark.measures if m.name in names])
    found, left_out = with_what_is_there(two)
    if found.headline[0] in left_out:
        reason = left_out[found.headline[0]]
        raise UserError(f"benchmark '{benchmark.name}': no headline score can be made: {reason}")
    return replace(found, measures=[m for m in found.measures if m.name == found.headline[0]])
