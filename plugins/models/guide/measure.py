"""Measure classifier guidance against classifier-free guidance on `shapes`, over the scale.

    python -m t2i.plugins.models.guide.measure --run runs/ddpm --guide runs/guide
    python -m t2i.plugins.models.guide.measure --run A --guide B --sampler ddim --count 100 \
        --scales 0 1 2 4 8 --json curve.json

Prints one row for each scale: the share of one-object captions whose image is all right. The
columns are: the guide alone (the model has no caption: guidance 0), the guide beside the caption
(guidance 1), and classifier-free guidance of 1 plus the scale.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from t2i.core.interfaces.scoring import ImageBatch, Metric, proportion_interval
from t2i.core.models.loading import load
from t2i.core.models.model import Model
from t2i.core.registry.tables import registry

SCALES = (0.0, 1.0, 3.0, 5.0, 10.0, 20.0, 40.0)
KINDS = {"alone": "guide alone", "guide": "guide and caption", "free": "classifier-free 1 + s"}
"""Title of the column of each kind of guidance."""
ONE_OBJECT = {"two_objects": 0, "three_objects": 0, "counts": 0}
"""Settings of `shapes` with one object in each image."""


def captions(count: int, size: int) -> list[str]:
    """Return captions of one object, as the benchmark `shapes` asks for them.

    Args:
        count: How many.
        size: Height and width of the images in pixels.

    Returns:
        The captions.
    """
    choice = registry().datasets.choose("shapes", {**ONE_OBJECT, "image_size": size})
    data: Any = registry().datasets.build(choice, "val")
    return [data[index].captions[0] for index in range(count)]


def right(model: Model, asked: list[str], **request: Any) -> int:
    """Sample one image for each caption, and count those that are all right.

    Args:
        model: The model.
        asked: The captions.
        **request: Arguments of `Model.sample`.

    Returns:
        The number.
    """
    images = np.stack([np.asarray(image) for image in model.sample(asked, **request)])
    metric: Metric = registry().metrics.build(registry().metrics.choose("caption-accuracy", {}))
    metric.update(ImageBatch(images, tuple(asked), tuple(range(len(asked)))))
    return round(metric.compute()["all"] * len(asked) / 100)


def measured(
    model: Model, guide: Model, asked: list[str], scale: float, **request: Any
) -> dict[str, int]:
    """Measure the kinds of guidance at one scale.

    Args:
        model: The diffusion model.
        guide: The guide.
        asked: The captions.
        scale: Scale of the guide; classifier-free guidance is 1 + scale.
        **request: Further arguments of `Model.sample`.

    Returns:
        The numbers of images that are all right, by kind of guidance, as in `KINDS`.
    """
    maker = guide.guide(scale) if scale else None
    return {
        "alone": right(model, asked, guide=maker, guidance=0.0, **request),
        "guide": right(model, asked, guide=maker, guidance=1.0, **request),
        "free": right(model, asked, guidance=1.0 + scale, **request),
    }


def main() -> None:
    """Print the curve."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--run", type=Path, required=True, help="run of a diffusion model")
    parser.add_argument("--guide", type=Path, required=True, help="run of the model 'guide'")
    parser.add_argument("--sampler", help="its own unless named")
    parser.add_argument("--steps", type=int, help="its own unless given")
    parser.add_argument("--count", type=int, default=200, help="captions")
    parser.add_argument("--scales", type=float, nargs="+", default=SCALES)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    given = parser.parse_args()
    model, guide = load(given.run), load(given.guide)
    asked, rows = captions(given.count, model.generator.image_size), []
    print(f"| s | {' | '.join(KINDS.values())} |\n|---|---|---|---|")
    for scale in given.scales:
        counts = measured(
            model, guide, asked, scale, sampler=given.sampler, steps=given.steps, batch_size=50
        )
        rows.append({"scale": scale, **counts})
        cells = [_cell(counts[kind], given.count) for kind in KINDS]
        print(f"| {scale:g} | {' | '.join(cells)} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps({"count": given.count, "rows": rows}, indent=2) + "\n")


def _cell(held: int, count: int) -> str:
    low, high = proportion_interval(held, count)
    return f"{100 * held / count:.1f} ({low:.0f} to {high:.0f})"


if __name__ == "__main__":
    main()
