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
