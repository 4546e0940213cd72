"""Exponential moving averages of the trained weights, which are used for sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving averages (EMA) of parameters.

    After n updates the decay is min(decay, (1 + n) / (10 + n)): this warm-up soon forgets the
    first, random weights.

    Args:
        parameters: The parameters to average, by full name.
        decay: Decay of the averages, 0 <= decay < 1. 0: there are no averages, and the parameters
            are used as they are.

    Attributes:
        decay: The decay after its warm-up.
        count: Number of updates so far.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.count = 0
        self._parameters = dict(parameters) if decay else {}
        self._average: list[Tensor] = [
            parameter.detach().clone() for parameter in self._parameters.values()
        ]

    def _live(self) -> list[Tensor]:
        # Not stored: a change of device or memory format gives a parameter new memory.
        return [parameter.detach() for parameter in self._parameters.values()]

    def update(self) -> None:
        """Move the averages towards the present parameters; called after each step."""
        if not self._average:
            return
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self._average, self._live(), 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the averages in the place of the parameters inside the block.

        Yields:
            Nothing.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        """Exchange the memory of parameters and averages; nothing is copied."""
        for i, parameter in enumerate(self._parameters.values()):
            parameter.data, self._average[i] = self._average[i], parameter.data

    def adopt(self) -> None:
        """Copy the averages into the parameters, when the stage ends."""
        for live, average in zip(self._live(), self._average, strict=True):
            live.copy_(average)

    def state(self) -> dict[str, Tensor]:
        """Return the averages for a checkpoint.

        Returns:
            The averages by the parameters' full names, not copied. Empty if the decay is 0.
        """
        return dict(zip(self._parameters, self._average, strict=True))

    def load(self, state: Mapping[str, Tensor], count: int) -> None:
        """Restore the averages of a checkpoint.

        Args:
            state: Averages by full name, as `state` returned them.
            count: Number of updates so far.

        Raises:
            KeyError: An average is missing.
        """
        self.count = count
        for name, average in self.state().items():
            average.copy_(state[name])
