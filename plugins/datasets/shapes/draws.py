"""Random draws that depend on (seed, split, index) alone."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK = 64


class Draws:
    """A stream of uniform numbers for one example.

    Philox is counter-based, and its raw output is the same on every machine and version of numpy, so that an example
    is too, whichever were drawn before it.
    """

    def __init__(self, seed: int, stream: int, index: int) -> None:
        # The low half of the counter runs within the example, the high half tells examples apart.
        self._bits = np.random.Philox(
            key=np.array([seed, stream], np.uint64), counter=[0, 0, index, 0]
        )
        self._values: list[float] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in [low, high)."""
        if not self._values:
            raw = self._bits.random_raw(_BLOCK)
            self._values = ((raw >> np.uint64(11)) * 2.0**-53).tolist()
        return low + (high - low) * self._values.pop()

    def below(self, count: int) -> int:
        """An integer in 0 .. count - 1."""
        return int(self.uniform() * count)

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`, all equally likely."""
        return items[int(self.uniform() * len(items))]
