"""Measure the largest noise level for a data set (NCSNv2's technique 1).

    python -m t2i.plugins.models.ncsn.measure --data shapes --size 32

It prints the largest distance between two of the first images, each in [0, 1], as `sigma_begin`,
and the number of levels that follows by technique 2.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.plugins.models.ncsn.levels import level_count


def largest_distance(images: Tensor) -> float:
    """Compute the largest Euclidean distance between two images.

    Source: Song & Ermon 2020, technique 1.

    Args:
        images: Images, float (N, ...).

    Returns:
        The distance, in the images' unit.
    """
    rows = images.flatten(1).double()
    parts = (rows[start : start + 256] for start in range(0, len(rows), 256))
    return max(float(torch.cdist(part, rows).max()) for part in parts)


def first_images(data: str, folder: str | None, size: int, count: int) -> Tensor:
    """Read the first training images of a data set.

    Args:
        data: Registry name of the data set.
        folder: Its folder. None: it needs none.
        size: Height and width of the images in pixels.
        count: Largest number of images.

    Returns:
        The images, float (N, 3, H, W) in [0, 1].
    """
    choice = registry().datasets.choose(data, {"image_size": size, "dir": folder})
    dataset = import_object(registry().datasets[data].build)(choice.config, "train")
    arrays = [dataset[i].image for i in range(min(count, len(dataset)))]
    return torch.stack([torch.from_numpy(a).permute(2, 0, 1) for a in arrays]).double() / 255


def main() -> None:
    """Measure from the command line and print the result."""
    parser = argparse.ArgumentParser(description="Measure the largest noise level for a data set.")
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-dir")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--images", type=int, default=5000)
    given = parser.parse_args()
    images = first_images(given.data, given.data_dir, given.size, given.images)
    sigma_1 = largest_distance(images)
    levels = level_count(sigma_1, 0.01, images[0].numel())
    print(f"{len(images)} images: sigma_begin={sigma_1:.1f}, levels={levels}")


if __name__ == "__main__":
    main()
