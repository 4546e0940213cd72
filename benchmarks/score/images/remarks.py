"""What a reader of scores should know: how the images differ, and why not to trust a score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from t2i.benchmarks.score.images.protocols import ScoreProtocol
from t2i.benchmarks.score.images.sources import Images

if TYPE_CHECKING:
    from t2i.benchmarks.score.images.result import Score

LOSSY = frozenset({".jpg", ".jpeg"})
USUAL_SUBSET = 1000
"""Images of a subset of KID, where there are so many."""


@dataclass
class Seen:
    """What was seen of a set of images while it was read.

    Attributes:
        sizes: Number of images by (height, width).
        digests: Hash of the pixels of each image, in order.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    digests: list[bytes] = field(default_factory=list)

    def add(self, image: np.ndarray) -> None:
        """Take note of an image.

        Args:
            image: The image, uint8 (H, W, 3).
        """
        height, width = image.shape[:2]
        self.sizes[height, width] += 1
        digest = blake2b(f"{height} {width}".encode(), digest_size=16)
        digest.update(np.ascontiguousarray(image).data)
        self.digests.append(digest.digest())

    def size_text(self) -> str:
        """Describe the sizes.

        Returns:
            "WIDTHxHEIGHT", or how many sizes there are and the smallest and largest. Empty if no
            image was read.
        """
        ordered = sorted(self.sizes, key=lambda size: size[0] * size[1])
        texts = [f"{width}x{height}" for height, width in ordered]
        if len(texts) < 2:
            return "".join(texts)
        return f"{len(texts)} sizes from {texts[0]} to {texts[-1]}"


def notes(protocol: ScoreProtocol, sides: Sequence[tuple[Images | None, Seen]]) -> list[str]:
    """List facts that may explain a score.

    Args:
        protocol: The protocol.
        sides: The images and, if there is one, the reference, with what was seen of them.

    Returns:
        A sentence for each fact.
    """
    found = []
    for images, seen in sides:
        if images is None or not seen.digests:
            continue
        if len(seen.sizes) > 1:
            found.append(f"{images.where}: {seen.size_text()}; each image is resized on its own")
        if again := len(seen.digests) - len(set(seen.digests)):
            found.append(f"{images.where}: {again} of {len(images)} images repeat another one")
        others = {
            suffix: count for suffix, count in images.suffixes().items()
            if suffix not in protocol.suffixes
        }  # fmt: skip
        if others:
            told = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
            found.append(f"{images.where}: scored too, but '{protocol.name}' reads no {told}")
    return found + _differences(sides)


def _differences(sides: Sequence[tuple[Images | None, Seen]]) -> list[str]:
    """List differences between the two sets that move a distance by themselves."""
    if len(sides) < 2 or not all(seen.digests for _, seen in sides):
        return []
    (ours, seen), (real, shown) = sides
    found = []
    if seen.sizes.keys() != shown.sizes.keys():
        found.append(
            f"images have {seen.size_text()} pixels, the reference {shown.size_text()}: another "
            "size alone gives a distance"
        )
    if ours and real and _lossy(ours) != _lossy(real):
        found.append("one of the two sets is JPEG: its compression alone gives a distance")
    return found


def _lossy(images: Images) -> bool:
    suffixes = images.suffixes()
    return sum(suffixes[suffix] for suffix in LOSSY) > sum(suffixes.values()) / 2


def warnings(sides: Sequence[tuple[Images | None, Seen]], scores: Sequence[Score]) -> list[str]:
    """List reasons not to trust the scores.

    Args:
        sides: As for `notes`.
        scores: The scores.

    Returns:
        A sentence for each reason.
    """
    few = dict.fromkeys(text for score in scores if (text := _too_few(score)))
    return [*_shared(sides), *_changed(sides), *few]


def _changed(sides: Sequence[tuple[Images | None, Seen]]) -> list[str]:
    """Say which images lost something when they were read, as they do in the field's programs."""
    return [
        f"{images.where}: {count} of {len(images)} images: {what}"
        for images, _ in sides
        if images is not None
        for what, count in images.remarks.items()
    ]


def _shared(sides: Sequence[tuple[Images | None, Seen]]) -> list[str]:
    """Say if the same images are in both sets."""
    if len(sides) < 2:
        return []
    (_, seen), (_, real) = sides
    known = set(real.digests)
    both = sum(digest in known for digest in seen.digests)
    if not both:
        return []
    return [
        f"{both} of {len(seen.digests)} images are in the reference too, to the pixel: distances "
        "say nothing about new images"
    ]


def _too_few(score: Score) -> str:
    """Say if a score has too few images to mean what it usually means."""
    counts = [count for count in (score.images, score.reference) if count is not None]
    if not counts or not score.features:
        return ""
    least, width = min(counts), score.features["width"]
    if score.name == "fid" and least < width:
        return (
            f"{score.title} of {least} images, fewer than its {width} features: it is far too "
            "high, and comparable only with that of as many images; KID has no such bias"
        )
    if score.name == "kid" and least < USUAL_SUBSET:
        return f"{score.title}: subsets of {least} images, where papers take {USUAL_SUBSET}"
    return ""
