"""Score images in folders, of any origin, as `t2i bench` scores images of models."""

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
"""The measures that torch-fidelity's command prints."""

KINDS = (".png", ".jpg", ".jpeg")


def score_folders(
    folder: Path,
    reference: Path,
    measures: Sequence[Measure] = MEASURES,
    *,
    captions: Sequence[str] = (),
    features: Mapping[str, Mapping[str, Any]] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, Scores], dict[str, Intervals]]:
    """Score the images in a folder against those in another.

    Args:
        folder: Folder of the images to score. All must have one size.
        reference: Folder of the real images. All must have one size.
        measures: Measures of scope "every" or "headline". By default those of torch-fidelity's
            command, whose numbers they reproduce.
        captions: A caption for each image, in the order of the file names, for measures that read
            captions. Empty: no captions.
        features: Settings of extractors by registry name, such as {"inception": {"weights":
            "FILE"}}. None: the defaults.
        device: Where the extractors run.

    Returns:
        The scores, and their 95 % confidence intervals, both by measure.

    Raises:
        UserError: Something is missing, unknown or unreadable.
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
    """List the images of a folder in the order of their names, as torch-fidelity does."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in KINDS)
    if not paths:
        raise UserError(f"{folder}: there are no images in it ({', '.join(KINDS)})")
    return paths


def _captions(folder: Path, captions: Sequence[str]) -> Sequence[str]:
    """Check that there is a caption for each image; without captions, return empty ones."""
    count = len(_paths(folder))
    if captions and len(captions) != count:
        raise UserError(
            f"captions: there are {len(captions)} for {count} images in {folder}; give one for each"
        )
    return captions or [""] * count


def _images(folder: Path) -> Iterator[tuple[list[int], np.ndarray]]:
    """Yield the images of a folder in the order of their names: numbers, and uint8 (B, H, W, 3)."""
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
