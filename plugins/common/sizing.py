"""Widths of networks by the memory of an accelerator, for the presets `auto`."""

from __future__ import annotations

from collections.abc import Sequence

GB = 10**9
STEPS = (10 * GB, 20 * GB, 40 * GB)
"""Memory from which on the second, third and fourth width is chosen, in bytes."""


def by_memory(memory: int, choices: Sequence[int]) -> int:
    """Choose a width by memory.

    Args:
        memory: Memory of the accelerator in bytes.
        choices: Four widths: below 10 GB, below 20 GB, below 40 GB, and beyond.

    Returns:
        The width.
    """
    return choices[sum(memory >= least for least in STEPS)]


def patch_of(size: int, most: int, least: int) -> int:
    """Return the side of the patches with which the grid has at most so many places a side.

    Args:
        size: Height and width of the images in pixels.
        most: Largest number of places a side.
        least: Smallest side of a patch in pixels.

    Returns:
        `least` times a power of two, in pixels.
    """
    patch = least
    while size > most * patch:
        patch *= 2
    return patch
