"""Scores of images that lie in folders already: what `t2i bench` computes, for images of any origin."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from t2i.benchmarks.score.extraction import Extractors, batches
from t2i.benchmarks.score.scorer import build_metric
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import ImageBatch, Intervals, Measure, Scores

MEASURES = (
    Measure("fid", {"features": "inception/pool"}),
    Measure("kid", {"features": "inception/pool"}),
    Measure("isc"),
    Measure("prc", {"features": "vgg16"}),
)
"""What torch-fidelity's command prints."""

KINDS = (".png", ".jpg", ".jpeg")


def score_folders(
    folder: Path, reference: Path, measures: Sequence[Measure] = MEASURES, *, captions: Sequence[str] = (),
    features: Mapping[str, Mapping[str, Any]] | None = None, device: torch.device | str = "cpu",
) -> tuple[dict[str, Scores], dict[str, Intervals]]:  # fmt: skip
    """Scores and 95 % intervals, by measure, of the images in a folder against those in another.

    measures: of scope "every" or "headline" (default: those of torch-fidelity's command, to whose numbers they are
    equal). captions: of the images in the order of their names, for measures that read them.
    features: settings of extractors, by registry name ({"inception": {"weights": "FILE"}}).
    Raises UserError for anything that is missing, unknown or unreadable.
    """
    metrics = {measure.name: build_metric(measure) for measure in measures}
    read = [metric for metric in metrics.values() if metric.features]
    extractors = Extractors([str(metric.features) for metric in read], device, features)
    compared = [metric for metric in read if metric.reference]
    for _, images in _images(reference):
        found = extractors(images, {str(metric.features) for metric in compared})
        for metric in compared:
            metric.update_reference(found[str(metric.features)])
    words = _captions(folder, captions)
    for rows, images in _images(folder):
        said = tuple(words[row] for row in rows)
        names = {str(metric.features) for metric in read}
        texts = extractors.of_text(said, {str(metric.features) for metric in read if metric.text})
        batch = ImageBatch(images, said, tuple(rows), extractors(images, names), texts)
        for metric in metrics.values():
            metric.update(batch)
    scores = {name: metric.compute() for name, metric in metrics.items()}
    return scores, {name: metric.intervals() for name, metric in metrics.items()}


def _paths(folder: Path) -> list[Path]:
    """In the order of their names, as torch-fidelity takes them."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in KINDS)
    if not paths:
        raise UserError(f"{folder}: there are no images in it ({', '.join(KINDS)})")
    return paths


def _captions(folder: Path, captions: Sequence[str]) -> Sequence[str]:
    count = len(_paths(folder))
    if captions and len(captions) != count:
        raise UserError(
            f"captions: there are {len(captions)}, of {count} images in {folder}; give one of each"
        )
    return captions or [""] * count


def _images(folder: Path) -> Iterator[tuple[list[int], np.ndarray]]:
    """The images of a folder in the order of their names: their numbers, and uint8 (B, H, W, 3)."""
    for held in batches(enumerate(_paths(folder))):
        images = [_image(path) for _, path in held]
        if len({image.shape for image in images}) > 1:
            raise UserError(
                f"{folder}: its images are not all of one size; resize them in one way first"
            )
        yield [row for row, _ in held], np.stack(images)


def _image(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as an image ({str(error)[:80]}); remove it or mend it"
        ) from None
