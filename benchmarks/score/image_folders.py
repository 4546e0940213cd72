"""Scores of two folders of images, in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from t2i.benchmarks.score.images.protocols import MEASURES as MEASURES
from t2i.benchmarks.score.images.score import ScoreRequest, score_images
from t2i.core.interfaces.scoring import Intervals, Measure, Scores


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
        folder: Folder of the images to score.
        reference: Folder of the real images.
        measures: Measures. By default those of torch-fidelity's command, whose numbers they
            reproduce.
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
    found = score_images(
        ScoreRequest(
            folder, reference, measures=measures, captions=captions, settings=features or {},
            device=device,
        )
    )  # fmt: skip
    return found.by_measure(), found.intervals()
