"""The engine of a single process, without precision scaling or checks: what measurements and tests train with."""

from __future__ import annotations

import torch
from torch import Tensor

from t2i.core.engine.optimizing import Optimizing
from t2i.core.interfaces.trainer import Trainer, optimizations
from t2i.core.settings import EngineConfig


class LocalEngine:
    """An engine (t2i.core.interfaces.trainer.Engine) of one process: backward into one optimizer's parameters, clipping
    and learning rates as the settings and the optimizers have them.

    Attributes:
        progress: of the stage, 0 to 1.
        part: the part of the batch that is at work, from 0 (`accumulate`).
    """

    def __init__(
        self,
        trainer: Trainer,
        settings: EngineConfig,
        *,
        progress: float = 0.0,
        updates: bool = True,
    ) -> None:
        """updates: whether anything is trained; without, `update` does nothing."""
        self._optimizing = Optimizing(optimizations(trainer), settings)
        self._settings = settings
        self._updates = updates
        self.progress = progress
        self.part = 0

    def begin_step(self, step: int, warm: float = 0.0) -> None:
        """Sets the learning rates of a step of the stage, counted from 0. warm: the progress when warm-up ended."""
        self._optimizing.set_learning_rates(step, self.progress, warm)

    def update(self, name: str, loss: Tensor) -> None:
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
        chosen.optimizer.zero_grad(set_to_none=True)

    def shifted(self, x: Tensor) -> Tensor:
        return torch.roll(x, 1, 0)

    def gathered(self, x: Tensor) -> Tensor:
        return x
