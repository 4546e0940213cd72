"""The likelihood of real images under the models of a benchmark, for those that can compute it.

It is kept apart from the other scores of a row, in OUT/likelihoods/ROW.json: no image is sampled
for it, and it does not change what the other scores depend on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from t2i.benchmarks.figures import Score
from t2i.benchmarks.results import Column, Row
from t2i.benchmarks.run.caption_sets import CaptionSet
from t2i.benchmarks.run.plan import PlannedRun
from t2i.benchmarks.run.reporter import BenchmarkReporter
from t2i.benchmarks.run.timeline import Timeline
from t2i.benchmarks.run.training_record import model_digest
from t2i.benchmarks.score.scorer import Scorer, build_metric
from t2i.core.errors import UserError
from t2i.core.interfaces.likelihood import LEVELS, Likelihood
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.scoring import ImageBatch, Metric
from t2i.core.io.documents import checked
from t2i.core.io.json_files import read_object, write_json
from t2i.core.io.processes import Group
from t2i.core.models.likelihood import likelihood_of, nats_of
from t2i.core.models.loading import load
from t2i.core.models.model import Model

BATCH = 25
REMEDY = "remove the file, and the likelihood is computed again"
_SCORES = TypeAdapter(dict[str, Score])
_INTERVALS = TypeAdapter(dict[str, tuple[Score, Score]])


@dataclass(frozen=True)
class Likelihoods:
    """Adds the likelihood of real images to the rows of models.

    Args:
        out: Folder of the benchmark.
        headline: The headline caption set, whose real images are scored, each with its caption.
        scorer: Holds the measures.
        seed: Seed of the noise.
        group: The processes of the command. The first one computes.
        reporter: Receives the progress.
        timeline: Receives the time that is spent.
        device: Where models run.
    """

    out: Path
    headline: CaptionSet
    scorer: Scorer
    seed: int
    group: Group
    reporter: BenchmarkReporter
    timeline: Timeline
    device: torch.device

    @property
    def measures(self) -> list[str]:
        """Names of the measures that read a likelihood."""
        return [name for name, metric in self.scorer.prototypes.items() if metric.likelihood]

    def check(self) -> None:
        """Check that there are enough real images, before anything is trained.

        Raises:
            UserError: There are too few.
        """
        data = self.headline.data
        for name in self.measures:
            count = self._count(name)
            if not data.endless and len(data) < count:
                raise UserError(
                    f"the likelihood of {count} images: split '{self.headline.prompts.split}' has "
                    f"{len(data)}: use --likelihood {len(data)} or less"
                )

    def add(self, row: Row, entry: PlannedRun) -> None:
        """Add the scores of a model's likelihood to its row, if the model can compute it.

        Args:
            row: The row.
            entry: The planned run, which is finished.
        """
        for name in self.measures:
            found = self.group.first(partial(self._scored, name, row, entry))
            if found is None:
                continue
            title = self.headline.prompts.name
            row.likelihood = found["protocol"]
            row.scores.setdefault(title, {})[name] = found["scores"]
            row.intervals.setdefault(title, {})[name] = found["intervals"]

    def _settings(self, measure: str) -> Mapping[str, Any]:
        """Return all settings of a measure, defaults included."""
        settings: Mapping[str, Any] = self.scorer.protocol()[measure]["settings"]
        return settings

    def _count(self, measure: str) -> int:
        return int(self._settings(measure)["images"])

    def _scored(self, measure: str, row: Row, entry: PlannedRun) -> dict[str, Any] | None:
        """Compute the scores of a row, or read them if they are there. None: there is none."""
        model = load(entry.place or entry.run.path, str(self.device))
        likelihood = likelihood_of(model, self._settings(measure).get("settings"))
        if likelihood is None:
            return None
        count = self._count(measure)
        key = {
            "model": model_digest(entry),
            "measure": self.scorer.protocol()[measure],
            "protocol": protocol_of(likelihood),
            "seed": self.seed,
            "images": [self.headline.data.fingerprint(), count],
        }
        file = self.out / "likelihoods" / f"{row.name}.json"
        if found := _kept(file, key):
            return {**found, "protocol": key["protocol"]}
        metric = build_metric(self.scorer.measures[measure])
        try:
            with self.timeline.spending(row.name, "scoring"):
                for batch in self._batches(row, model, likelihood, count):
                    metric.update(batch)
        except UserError as error:  # of this model: the other rows are still worth having
            self._refused(row, str(error))
            return None
        if not all(map(math.isfinite, metric.compute().values())):
            self._refused(row, "it is not finite")
            return None
        scores: dict[str, Any] = {"scores": metric.compute(), "intervals": metric.intervals()}
        write_json(file, {"key": key, **scores})
        return {**scores, "protocol": key["protocol"]}

    def _refused(self, row: Row, reason: str) -> None:
        """Say why a row has no likelihood, although its model declares one."""
        self.reporter.say(f"warning: {row.name}: no likelihood: {reason}")

    def _batches(
        self, row: Row, model: Model, likelihood: Likelihood, count: int
    ) -> Iterator[ImageBatch]:
        """Yield real images with -log p under a model."""
        self.reporter.say(f"{row.name}, likelihood: {count} real images")
        for start in range(0, count, BATCH):
            numbers = range(start, min(count, start + BATCH))
            examples = [self.headline.data[number] for number in numbers]
            images = np.stack([example.image for example in examples])
            captions = tuple(example.captions[0] for example in examples)
            noise = PromptNoise(self.seed, tuple((n, 0) for n in numbers), self.device)
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
            nats = nats_of(model, likelihood, pixels, captions, noise.scope("likelihood"))
            dims = likelihood.dims(images[0].size)
            yield ImageBatch(images, captions, tuple(numbers), nats=nats, dims=dims)
            self.reporter.count(f"{row.name}, likelihood", numbers.stop, count)


def protocol_of(likelihood: Likelihood) -> dict[str, Any]:
    """Describe how a likelihood is computed.

    Args:
        likelihood: The likelihood.

    Returns:
        Bit depth, kind (exact, estimate or bound), and the likelihood's own description, as JSON.
    """
    depth = LEVELS.bit_length() - 1
    found = {"bit_depth": depth, "kind": likelihood.kind, **likelihood.protocol()}
    return {name: value for name, value in found.items() if value is not None}


def ranked_apart(
    columns: Sequence[Column], rows: Sequence[Row], prototypes: Mapping[str, Metric]
) -> list[Column]:
    """Leave columns of likelihoods unranked if they were not all computed in the same way.

    Args:
        columns: The columns of the table.
        rows: The rows.
        prototypes: A metric of each measure.

    Returns:
        The columns.
    """
    ways = [row.likelihood for row in rows if row.likelihood]
    if all(way == ways[0] for way in ways):
        return list(columns)
    return [replace(c, better="none") if prototypes[c.measure].likelihood else c for c in columns]


def _kept(file: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    """Read the scores of a file. None: there is no file, or one of something else."""
    if not file.exists():
        return None
    document = read_object(file, "likelihood", finite=True)
    if document.get("key") != key:
        return None
    return {
        "scores": checked(_SCORES, document.get("scores"), str(file), REMEDY),
        "intervals": checked(_INTERVALS, document.get("intervals"), str(file), REMEDY),
    }
