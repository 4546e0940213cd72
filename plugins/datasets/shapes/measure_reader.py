"""Measurement of the reader's accuracy and speed; it prints a table in Markdown.

python -m t2i.plugins.datasets.shapes.measure_reader [--count N]
"""

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from t2i.plugins.datasets.shapes.config import ShapesConfig
from t2i.plugins.datasets.shapes.dataset import Shapes
from t2i.plugins.datasets.shapes.metric import caption_accuracy

Images = NDArray[np.uint8]
COLUMNS = ("all", "shape", "colour", "size", "position", "relation", "count")


def noisy(images: Images, sigma: float) -> Images:
    """Add Gaussian noise to images.

    Args:
        images: uint8 (N, H, W, 3).
        sigma: Standard deviation, as a fraction of the full range.

    Returns:
        The noisy images, of the same shape.
    """
    noise = np.random.default_rng(0).normal(0, 255 * sigma, images.shape)
    return (images + noise).clip(0, 255).round().astype(np.uint8)


def blurred(images: Images, sigma: float) -> Images:
    """Blur images with a Gaussian.

    Args:
        images: uint8 (N, H, W, 3).
        sigma: Standard deviation in pixels.

    Returns:
        The blurred images, of the same shape.
    """
    smooth: Images = (
        ndimage.gaussian_filter(images.astype(np.float32), (0, sigma, sigma, 0))
        .round()
        .astype(np.uint8)
    )
    return smooth


CONDITIONS: dict[str, Callable[[Images], Images]] = {
    "clean": lambda images: images,
    "noise 2 %": lambda images: noisy(images, 0.02),
    "noise 5 %": lambda images: noisy(images, 0.05),
    "blur 0.6 px, noise 5 %": lambda images: noisy(blurred(images, 0.6), 0.05),
    "blur 1 px": lambda images: blurred(images, 1.0),
    "blur 2 px": lambda images: blurred(images, 2.0),
    "colours permuted": lambda images: images[..., [1, 2, 0]],
    "other captions (chance)": lambda images: np.roll(images, 1, axis=0),
    "black": np.zeros_like,
    "mean image": lambda images: np.broadcast_to(images.mean(0).astype(np.uint8), images.shape),
    "uniform noise": lambda images: np.random.default_rng(0).integers(
        0, 256, images.shape, np.uint8
    ),
}


def rows(image_size: int, count: int) -> Iterator[str]:
    """Score images of val under each condition.

    Args:
        image_size: Side of the images in pixels.
        count: Number of images.

    Yields:
        A line of the table for each condition.
    """
    data = Shapes(ShapesConfig(image_size=image_size), "val")
    examples = [data[index] for index in range(count)]
    images, captions = np.stack([e.image for e in examples]), [e.captions[0] for e in examples]
    for name, change in CONDITIONS.items():
        changed = change(images)
        started = time.process_time()
        scores = caption_accuracy(changed, captions)
        cost = 1000 * (time.process_time() - started) / count
        yield (
            f"| {image_size} | {name} | "
            + " | ".join(f"{scores[c]:.1f}" for c in COLUMNS)
            + f" | {cost:.1f} |"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--count", type=int, default=2000, help="images of 32 px; a quarter of that of 64 px"
    )
    count = parser.parse_args().count
    print("| px | images | " + " | ".join(COLUMNS) + " | ms each |")
    print("|" + "---|" * (len(COLUMNS) + 3))
    for image_size, number in ((32, count), (64, count // 4)):
        for row in rows(image_size, number):
            print(row, flush=True)


if __name__ == "__main__":
    main()
