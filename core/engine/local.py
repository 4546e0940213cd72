"""A minimal engine for one process, used by benchmarks and tests.

It does not scale losses for fp16 and does not check for values that are not finite.
"""

from __future__ import annotations

import torch
from torch import Tensor

from t2i.core.engine.casting import forget_casts
from t2i.core.engine.eight_bit import in_bits
from t2i.core.engine.optimizing import Optimizing
from t2i.core.interfaces.trainer import Trainer, optimizations
from t2i.core.settings.engine import EngineConfig


class LocalEngine:
    """An engine (`t2i.core.interfaces.trainer.Engine`) for one process.

    Updates, clipping and learning rates follow the settings and the optimizers, as in a real run.

    Args:
        trainer: The trainer whose losses are handed to `update`.
        settings: The engine's settings.
        progress: Progress of the stage, 0 to 1.
        updates: Whether to train. False: `update` does nothing.

    Attributes:
        progress: Progress of the stage, 0 to 1; the caller may change it.
        part: Index of the present micro-batch, from 0 (`accumulate`); the caller sets it.
    """

    def __init__(
        self,
        trainer: Trainer,
        settings: EngineConfig,
        *,
        progress: float = 0.0,
        updates: bool = True,
    ) -> None:

        chosen = {
            name: in_bits(optimization, settings.optimizer_bits)
            for name, optimization in optimizations(trainer).items()
        }
        self._optimizing = Optimizing(chosen, settings)
        self._settings = settings
        self._updates = updates
        self.progress = progress
        self.part = 0

    def begin_step(self, step: int, warm: float = 0.0) -> None:
        """Set the learning rates for a step.

        Args:
            step: Step of the stage, from 0.
            warm: Progress at which the warm-up ended, 0 to 1.
        """
        self._optimizing.set_learning_rates(step, self.progress, warm)

    def update(self, name: str, loss: Tensor) -> None:
        """Backpropagate a loss into one optimizer's parameters; after the last micro-batch, step.

        Args:
            name: Name of the optimizer.
            loss: Scalar.
        """
        if not self._updates:
            return
        chosen = self._optimizing[name]
        parameters = chosen.parameters
        with torch.autocast(loss.device.type, enabled=False):
            torch.autograd.backward(loss / self._settings.accumulate, inputs=parameters)
        if self.part < self._settings.accumulate - 1:
            return
        self._optimizing.clip(name, parameters)
        chosen.optimizer.step()
        forget_casts()
        chosen.optimizer.zero_grad(set_to_none=True)

    def shifted(self, x: Tensor) -> Tensor:
        """Roll the batch by one row, which gives mismatched pairs.

        Args:
            x: Rows of the batch (B, ...).

        Returns:
            The rolled rows (B, ...).
        """
        return torch.roll(x, 1, 0)

    def gathered(self, x: Tensor) -> Tensor:
        """Return the rows of all processes, which are those of this one.

        Args:
            x: Rows of the batch (B, ...).

        Returns:
            `x` itself.
        """
        return x
