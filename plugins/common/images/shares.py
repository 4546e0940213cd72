"""A split by share that leaves no split empty."""

from __future__ import annotations

import math
from collections.abc import Sequence

from t2i.plugins.common.images.image_files import in_val, rank


def safe_share(keys: Sequence[str], share: float) -> float:
    """Change the share of val as little as it takes for each split to have an image.

    Args:
        keys: Keys of the images, at least two different ones.
        share: The share that was set, for `in_val`.

    Returns:
        The share itself, unless no key or every key would be in val.
    """
    inside = sum(in_val(key, share) for key in keys)
    if inside == 0:
        return math.nextafter(min(map(rank, keys)) / 2**64, 1)
    return share if inside < len(keys) else math.nextafter(max(map(rank, keys)) / 2**64, 0)
