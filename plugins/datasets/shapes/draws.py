"""Random numbers that depend on (seed, split, index) alone."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")
_BLOCK = 64


class Draws:
    """A stream of random numbers for one example.

    Philox is counter-based, and its raw output is the same on every machine and version of NumPy.
    So an example is the same everywhere, whichever examples were drawn before it.

    Args:
        seed: Seed of the data set.
        stream: Number of the stream, such as that of the split.
        index: Index of the example.
    """

    def __init__(self, seed: int, stream: int, index: int) -> None:
        # The low half of the counter counts within an example; the high half is its index.
        self._bits = np.random.Philox(
            key=np.array([seed, stream], np.uint64), counter=[0, 0, index, 0]
        )
        self._values: list[float] = []

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Draw a uniform number.

        Args:
            low: Lower end of the range, included.
            high: Upper end of the range, excluded.

        Returns:
            A number in [low, high).
        """
        if not self._values:
            raw = self._bits.random_raw(_BLOCK)
            self._values = ((raw >> np.uint64(11)) * 2.0**-53).tolist()
        return low + (high - low) * self._values.pop()

    def below(self, count: int) -> int:
        """Draw an integer.

        Args:
            count: Number of possible values.

        Returns:
            An integer from 0 to count - 1.
        """
        return int(self.uniform() * count)

    def choice(self, items: Sequence[T]) -> T:
        """Choose an item; all are equally likely.

        Args:
            items: At least one item.

        Returns:
            The chosen one.
        """
        return items[int(self.uniform() * len(items))]
