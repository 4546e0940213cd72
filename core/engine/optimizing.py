"""A trainer's optimizers as every engine uses them: whose parameters they are, learning rates, clipping."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from t2i.core.interfaces.trainer import Optimization
from t2i.core.settings import EngineConfig


def learning_rate_factor(settings: EngineConfig, step: int, progress: float, warm: float) -> float:
    """What the learning rates are multiplied with: linear warm-up over `warmup` steps, then constant, or down to
    `lr_floor` by a cosine or a line over the rest of the stage, or halved after equal parts of it.

    Args:
        step: step of the stage, from 0.
        progress: of the stage, 0 to 1.
        warm: the progress at which the warm-up ended.
    """
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    if settings.lr_schedule == "constant":
        return 1.0
    rest = min(1.0, max(0.0, progress - warm) / max(1 - warm, 1e-9))
    if settings.lr_schedule == "halving":
        return 0.5 ** min(settings.lr_halvings, int(rest * (settings.lr_halvings + 1)))
    left = 1 - rest if settings.lr_schedule == "linear" else (1 + math.cos(math.pi * rest)) / 2
    return settings.lr_floor + (1 - settings.lr_floor) * left


class Optimizing:
    """The optimizers of a trainer by name, with the engine's settings for them."""

    def __init__(self, chosen: Mapping[str, Optimization], settings: EngineConfig) -> None:
        self._chosen = chosen
        self._settings = settings
        for optimization in chosen.values():
            for group in optimization.optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])

    def __getitem__(self, name: str) -> Optimization:
        return self._chosen[name]

    def set_learning_rates(self, step: int, progress: float, warm: float) -> None:
        """Sets every group's learning rate: its own, times the engine's factor, times the optimizer's schedule."""
        factor = learning_rate_factor(self._settings, step, progress, warm)
        for optimization in self._chosen.values():
            own = optimization.schedule(progress) if optimization.schedule else 1.0
            for group in optimization.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor * own

    def learning_rates(self) -> dict[str, float]:
        """The learning rate of each optimizer's first group."""
        return {
            name: chosen.optimizer.param_groups[0]["lr"] for name, chosen in self._chosen.items()
        }

    def clip(
        self, name: str, parameters: Sequence[nn.Parameter], norm: Tensor | None = None
    ) -> None:
        """Scales down the gradients of one optimizer whose norm is too large.

        Args:
            parameters: those that were updated.
            norm: of all their gradients, if it is known.
        """
        optimizer, clip = self._chosen[name].optimizer, self._chosen[name].clip
        if isinstance(clip, Sequence):
            for group, most in zip(optimizer.param_groups, clip, strict=True):
                if most:
                    nn.utils.clip_grad_norm_(group["params"], most)
        elif most := self._settings.grad_clip if clip is None else clip:
            if norm is None:
                norm = gradient_norm(parameters)
            nn.utils.clip_grads_with_norm_(parameters, most, norm)


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """The norm of all gradients that there are."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
