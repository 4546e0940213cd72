"""GenEval's rules: which detected objects count, and whether they are what a prompt names.

Source: Ghosh et al. 2023, section 3 and the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from t2i.plugins.features.geneval.prompts import Prompt

THRESHOLD = 0.3
"""Confidence above which a detected object counts."""
COUNTING_THRESHOLD = 0.9
"""The same for prompts that count."""
MOST = 16
"""Number of objects of one class that count, the most certain ones."""
MARGIN = 0.1
"""Part of the sizes of two objects that the distance between their centres must exceed."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom edge in pixels."""


@dataclass(frozen=True)
class Found:
    """A detected object.

    Args:
        name: Its class.
        score: How sure the detector is, from 0 to 1.
        box: Its box.
        mask: Its pixels, bool (H, W).
    """

    name: str
    score: float
    box: Box
    mask: Tensor


Named = Callable[[Sequence[Found], str], Sequence[str]]
"""Names the colour of each of some objects of a class."""


def counted(found: Sequence[Found], tag: str, max_overlap: float = 1) -> dict[str, list[Found]]:
    """Select the detected objects that count.

    Args:
        found: The detected objects.
        tag: Kind of the prompt.
        max_overlap: Overlap from which on the less certain of two objects is removed. 1: none is.

    Returns:
        The objects by class, the most certain first.
    """
    threshold = COUNTING_THRESHOLD if tag == "counting" else THRESHOLD
    by_class: dict[str, list[Found]] = {}
    for one in sorted(found, key=lambda one: -one.score):
        if one.score > threshold:
            by_class.setdefault(one.name, []).append(one)
    return {name: _apart(same[:MOST], max_overlap) for name, same in by_class.items()}


def _apart(found: Sequence[Found], max_overlap: float) -> list[Found]:
    """Remove each object that overlaps a more certain one too much."""
    left: list[Found] = []
    for one in found:
        if max_overlap == 1 or all(overlap(one.box, o.box) < max_overlap for o in left):
            left.append(one)
    return left


def overlap(one: Box, other: Box) -> float:
    """Compute the intersection of two boxes, divided by their union.

    Edges count as pixels, as in the authors' code: a box is one pixel wider than right - left.

    Args:
        one: A box.
        other: Another.

    Returns:
        The overlap, from 0 to 1.
    """
    left, top = max(one[0], other[0]), max(one[1], other[1])
    right, bottom = min(one[2], other[2]), min(one[3], other[3])
    both = _area((left, top, right, bottom))
    return both / (_area(one) + _area(other) - both)


def _area(box: Box) -> int:
    return max(box[2] - box[0] + 1, 0) * max(box[3] - box[1] + 1, 0)


def positions(one: Box, other: Box) -> set[str]:
    """Find out where a box is, seen from another.

    The offset of the centres is shortened by `MARGIN` of the sum of the sizes, along each axis. A
    direction holds if more than half of the whole offset is left along it.

    Args:
        one: The box.
        other: The other box.

    Returns:
        One or two of `POSITIONS`, or none.
    """
    a, b = (np.array(box, float).reshape(2, 2) for box in (one, other))
    offset = a.mean(0) - b.mean(0)
    sizes = (a[1] - a[0]) + (b[1] - b[0])
    left = np.sign(offset) * np.maximum(np.abs(offset) - MARGIN * sizes, 0)
    if np.abs(left).max() < 1e-3:
        return set()
    x, y = left / np.linalg.norm(offset)
    holds = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, true in holds.items() if true}


def shows(prompt: Prompt, found: Mapping[str, Sequence[Found]], colours: Named) -> bool:
    """Tell whether the detected objects are what a prompt names.

    Colours and positions are those of the most certain objects of a class alone, as many as the
    prompt names.

    Args:
        prompt: What the image must show.
        found: The objects by class, the most certain first (`counted`).
        colours: Names the colours of objects.

    Returns:
        Whether all that must be there is there, and nothing that must not.
    """
    groups: list[Sequence[Found]] = []
    for wanted in prompt.include:
        best = found.get(wanted.name, ())[: wanted.count]
        if len(best) < wanted.count:
            return False
        if wanted.colour and {*colours(best, wanted.name)} != {wanted.colour}:
            return False
        if wanted.position:
            where, other = wanted.position
            pairs = ((one.box, target.box) for one in best for target in groups[other])
            if not all(where in positions(*pair) for pair in pairs):
                return False
        groups.append(best)
    return all(len(found.get(one.name, ())) < one.count for one in prompt.exclude)
