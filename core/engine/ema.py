"""Averaged weights: what is sampled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving averages of parameters, by name. With decay 0 the averages are the parameters themselves.

    The decay warms up as min(decay, (1 + n) / (10 + n)), so that the first, random weights are soon forgotten.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self.count = 0
        self._parameters = dict(parameters) if decay else {}
        self._average: list[Tensor] = [
            parameter.detach().clone() for parameter in self._parameters.values()
        ]

    def _live(self) -> list[Tensor]:
        # Asked for anew each time: a change of device or memory format gives a parameter other memory.
        return [parameter.detach() for parameter in self._parameters.values()]

    def update(self) -> None:
        if not self._average:
            return
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self._average, self._live(), 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside the block the parameters hold the averages."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        """Memory changes hands; nothing is copied."""
        for i, parameter in enumerate(self._parameters.values()):
            parameter.data, self._average[i] = self._average[i], parameter.data

    def adopt(self) -> None:
        """Puts the averages in the parameters' place, for good."""
        for live, average in zip(self._live(), self._average, strict=True):
            live.copy_(average)

    def state(self) -> dict[str, Tensor]:
        return dict(zip(self._parameters, self._average, strict=True))

    def load(self, state: Mapping[str, Tensor], count: int) -> None:
        """Takes averages that `state` gave. Raises KeyError if one is missing."""
        self.count = count
        for name, average in self.state().items():
            average.copy_(state[name])
