"""The images that the models of a benchmark are trained on, to find what models memorise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from t2i.benchmarks.run.plan import BenchmarkPlan, PlannedRun
from t2i.benchmarks.score.extraction import Extractors, reference_features
from t2i.benchmarks.score.metrics.memorised import nearest
from t2i.core.errors import UserError
from t2i.core.interfaces.broken import SoundDataset
from t2i.core.interfaces.dataset import Dataset
from t2i.core.io.json_files import read_json
from t2i.core.io.terminal import note
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import open_dataset

MOST = 20_000
"""Largest number of training images that are compared, the first ones of the split."""


@dataclass(frozen=True)
class TrainingImages:
    """The training images.

    Args:
        data: The split that models are trained on, at the benchmark's image size.
        count: Number of images that are compared, the first ones.
        features: Their features by name, float32 (`count`, D).
    """

    data: Dataset
    count: int
    features: Mapping[str, Tensor]

    def describe(self) -> dict[str, Any]:
        """Describe the images for the protocol.

        Returns:
            Split, number and fingerprint.
        """
        return {"split": "train", "count": self.count, "fingerprint": self.data.fingerprint()}

    def nearest_to(self, images: np.ndarray, extractors: Extractors) -> np.ndarray:
        """Find the training image that is nearest to each image.

        Args:
            images: The images, uint8 (B, H, W, 3).
            extractors: The extractors that made `features`.

        Returns:
            The training images, uint8 (B, H, W, 3), by the first of the features.
        """
        name = next(iter(self.features))
        places = nearest(extractors(images, {name})[name], self.features[name])[1]
        return np.stack([self.data[place].image for place in places.tolist()])


def training_images(
    plan: BenchmarkPlan, names: list[str], extractors: Extractors, say: Callable[[str], None]
) -> TrainingImages:
    """Open the training images of a plan, and take their features.

    Args:
        plan: The plan.
        names: Names of the features.
        extractors: The extractors of the benchmark.
        say: Function that prints a line of progress.

    Returns:
        The images with their features, from the cache if they are in it.
    """
    size = plan.benchmark.image_size
    data = _opened(plan.data, size)
    data.prepare(note)
    sound = SoundDataset(data, note)
    count = min(len(sound), MOST)
    say(f"training images: {count} of '{plan.data['name']}'")
    return TrainingImages(sound, count, reference_features(sound, count, extractors, names))


def _opened(section: Mapping[str, Any], size: int) -> Dataset:
    """Open the split that a section `data` of a model's settings is trained on."""
    own = {key: value for key, value in section.items() if key != "name"}
    choice = registry().datasets.choose(section["name"], {**own, "image_size": size}, "data set")
    return open_dataset(choice, "train")


def other_data(entry: PlannedRun, plan: BenchmarkPlan) -> str:
    """Say if a run that is given was trained on other data than the benchmark's.

    Args:
        entry: The planned run.
        plan: The plan.

    Returns:
        A sentence; empty if it was trained on the benchmark's data, if that is unknown, or if the
        benchmark has no images.
    """
    if not (entry.given and registry().datasets[plan.data["name"]].images):
        return ""
    theirs = entry.config.data
    if theirs.name != plan.data["name"]:
        return f"it was trained on '{theirs.name}', not on '{plan.data['name']}'"
    try:
        recorded = read_json(entry.run.config_file, "run").get("data_fingerprint")
        ours = {**theirs.dump(), **{k: plan.data[k] for k in ("dir",) if k in plan.data}}
        known = _opened(ours, theirs.config.image_size).fingerprint()
    except (UserError, AttributeError):
        return ""
    if recorded in (None, known):
        return ""
    return f"it was trained on other images of the kind '{theirs.name}', not on these"
