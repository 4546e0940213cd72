"""Moving averages of the trained weights, which are used for sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from t2i.core.settings.engine import EngineConfig

if TYPE_CHECKING:
    from t2i.core.engine.sharding import Sharding


class Ema:
    """Moving averages (EMA) of parameters: exponential ones, or power functions.

    After n updates the decay of exponential averages is min(decay, (1 + n) / (10 + n)): this
    warm-up soon forgets the first, random weights. `rampup` replaces it.

    Args:
        parameters: The parameters to average, by full name.
        decay: Decay of the averages, 0 <= decay < 1. 0: there are no averages, and the parameters
            are used as they are.
        rampup: Largest half-life, as a share of the updates so far (Karras et al. 2022, appendix
            F.2 and code). None: the warm-up above.
        sigma_rel: Relative width of power-function averages, whose weight of step s after n updates
            is proportional to s^gamma. None: exponential averages.
        sharding: The weights, of which `parameters` are this process's rows. None: each process has
            all.

    Attributes:
        count: Number of updates so far.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        decay: float,
        rampup: float | None = None,
        sigma_rel: float | None = None,
        sharding: Sharding | None = None,
    ) -> None:
        self._sharding = sharding
        self._decay, self._rampup = decay, rampup
        self._gamma = None if sigma_rel is None else gamma_of(sigma_rel)
        self.count = 0
        self._parameters = dict(parameters) if decay else {}
        self._average: list[Tensor] = [
            parameter.detach().clone() for parameter in self._parameters.values()
        ]

    @classmethod
    def of(
        cls,
        parameters: Mapping[str, nn.Parameter],
        settings: EngineConfig,
        sharding: Sharding | None = None,
    ) -> Ema:
        """Make the averages that the settings of a stage describe.

        Args:
            parameters: The parameters to average, by full name.
            settings: The stage's settings.
            sharding: The weights, if they are shared out.

        Returns:
            The averages.
        """
        decay, rampup = settings.ema_decay, settings.ema_rampup
        return cls(parameters, decay, rampup, settings.ema_sigma_rel, sharding)

    def _live(self) -> list[Tensor]:
        # Not stored: a change of device or memory format gives a parameter new memory.
        return [parameter.detach() for parameter in self._parameters.values()]

    def update(self) -> None:
        """Move the averages towards the present parameters; called after each step."""
        if not self._average:
            return
        self.count += 1
        torch._foreach_lerp_(self._average, self._live(), self._share())

    def _share(self) -> float:
        """Return the weight of the present parameters in the averages, 1 - beta."""
        n = self.count
        beta: float = min(self._decay, (1 + n) / (10 + n))
        if self._gamma is not None:  # Karras et al. 2024, eq. 127
            beta = (1 - 1 / n) ** (self._gamma + 1)
        elif self._rampup is not None:
            beta = min(self._decay, 0.5 ** (1 / (self._rampup * n)))
        return 1 - beta

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Put the averages in the place of the parameters inside the block.

        Processes that share the weights out must enter the block together.

        Yields:
            Nothing.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()
        if self._sharding and self._parameters:
            self._sharding.refresh()  # what stays whole during a step was gathered in the block

    def _swap(self) -> None:
        """Exchange parameters and averages.

        Their memory is exchanged, and nothing copied, unless it holds rows of a shared weight.
        """
        for i, parameter in enumerate(self._parameters.values()):
            if self._sharding:
                before = parameter.detach().clone()
                parameter.detach().copy_(self._average[i])
                self._average[i].copy_(before)
            else:
                parameter.data, self._average[i] = self._average[i], parameter.data

    def adopt(self) -> None:
        """Copy the averages into the parameters, when the stage ends."""
        for live, average in zip(self._live(), self._average, strict=True):
            live.copy_(average)

    def state(self) -> dict[str, Tensor]:
        """Return the averages for a checkpoint.

        All processes must call this together.

        Returns:
            The averages by the parameters' full names, not copied; whole in the first process.
            Empty if the decay is 0.
        """
        own = zip(self._parameters.items(), self._average, strict=True)
        gathered = self._sharding.gathered if self._sharding else lambda average, _: average
        return {name: gathered(average, parameter) for (name, parameter), average in own}

    def load(self, state: Mapping[str, Tensor], count: int) -> None:
        """Restore the averages of a checkpoint.

        Args:
            state: Averages by full name, as `state` returned them.
            count: Number of updates so far.

        Raises:
            KeyError: An average is missing.
        """
        self.count = count
        for (name, parameter), average in zip(self._parameters.items(), self._average, strict=True):
            saved = state[name]
            average.copy_(self._sharding.rows(saved, parameter) if self._sharding else saved)


def gamma_of(sigma_rel: float) -> float:
    """Return the exponent of the power-function averages of a relative width.

    It is the positive root of sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), the variance
    of a density that is proportional to s^gamma on [0, 1]. Source: Karras et al. 2024, eq. 126.

    Args:
        sigma_rel: The width, above 0 and below 1/sqrt(12).

    Returns:
        gamma, above 0.
    """
    t = sigma_rel**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())
