"""A trainer's optimizers with what every engine does for them: learning rates and clipping."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from t2i.core.interfaces.trainer import Optimization
from t2i.core.settings.engine import EngineConfig


def learning_rate_factor(settings: EngineConfig, step: int, progress: float, warm: float) -> float:
    """Compute the factor that multiplies all learning rates.

    It rises linearly to 1 over the first `warmup` steps. Over the rest of the stage it then stays 1
    ("constant"), falls to `lr_floor` ("cosine", "linear"; at once or after the share `lr_hold` of
    the rest), or is halved `lr_halvings` times, after equal parts ("halving").

    Args:
        settings: The stage's settings.
        step: Step of the stage, from 0.
        progress: Progress of the stage, 0 to 1.
        warm: Progress at which the warm-up ended, 0 to 1.

    Returns:
        The factor, 0 to 1.
    """
    if step < settings.warmup:
        return (step + 1) / settings.warmup
    if settings.lr_schedule == "constant":
        return 1.0
    rest = min(1.0, max(0.0, progress - warm) / max(1 - warm, 1e-9))
    if settings.lr_schedule == "halving":
        return 0.5 ** min(settings.lr_halvings, int(rest * (settings.lr_halvings + 1)))
    rest = max(0.0, rest - settings.lr_hold) / (1 - settings.lr_hold)
    left = 1 - rest if settings.lr_schedule == "linear" else (1 + math.cos(math.pi * rest)) / 2
    return settings.lr_floor + (1 - settings.lr_floor) * left


class Optimizing:
    """The optimizers of a trainer, with the engine's settings for them.

    `optimizing[name]` is one of them.

    Args:
        chosen: The optimizers by name. The learning rates they have now are those that the factors
            multiply (a group's "initial_lr", if it is there already, is kept).
        settings: The stage's settings.
        norm: Computes the norm of the gradients of parameters that are shared out over processes.
            None: each process has all.
    """

    def __init__(
        self,
        chosen: Mapping[str, Optimization],
        settings: EngineConfig,
        norm: Callable[[Sequence[nn.Parameter]], Tensor] | None = None,
    ) -> None:
        self._chosen = chosen
        self._settings = settings
        self._shared_norm = norm
        for optimization in chosen.values():
            for group in optimization.optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])

    def __getitem__(self, name: str) -> Optimization:
        return self._chosen[name]

    def set_learning_rates(self, step: int, progress: float, warm: float) -> None:
        """Set the learning rate of every parameter group.

        It is the group's initial rate, times the engine's factor (`learning_rate_factor`), times
        the optimizer's own schedule.

        Args:
            step: Step of the stage, from 0.
            progress: Progress of the stage, 0 to 1.
            warm: Progress at which the warm-up ended, 0 to 1.
        """
        factor = learning_rate_factor(self._settings, step, progress, warm)
        for optimization in self._chosen.values():
            own = optimization.schedule(progress) if optimization.schedule else 1.0
            for group in optimization.optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor * own

    def learning_rates(self) -> dict[str, float]:
        """Return the present learning rates, for the log.

        Returns:
            The learning rate of each optimizer's first parameter group, by the optimizer's name.
        """
        return {
            name: chosen.optimizer.param_groups[0]["lr"] for name, chosen in self._chosen.items()
        }

    def norm(self, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Compute the L2 norm of all gradients of parameters together.

        Args:
            parameters: The parameters; those without a gradient are ignored.

        Returns:
            A scalar, the same in every process.
        """
        return (self._shared_norm or gradient_norm)(parameters)

    def clip(
        self, name: str, parameters: Sequence[nn.Parameter], norm: Tensor | None = None
    ) -> None:
        """Clip the gradients of one optimizer to its largest norm.

        The limit is the optimizer's own `clip` (for all parameters or for each parameter group),
        else the setting `grad_clip`.

        Args:
            name: Name of the optimizer.
            parameters: Its parameters that get gradients.
            norm: Norm of all their gradients. None: computed here where it is needed.
        """
        optimizer, clip = self._chosen[name].optimizer, self._chosen[name].clip
        if isinstance(clip, Sequence):
            for group, most in zip(optimizer.param_groups, clip, strict=True):
                if most and self._shared_norm:
                    shared = self._shared_norm(group["params"])
                    nn.utils.clip_grads_with_norm_(group["params"], most, shared)
                elif most:
                    nn.utils.clip_grad_norm_(group["params"], most)
        elif most := self._settings.grad_clip if clip is None else clip:
            if norm is None:
                norm = self.norm(parameters)
            nn.utils.clip_grads_with_norm_(parameters, most, norm, foreach=_together(parameters))


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Compute the L2 norm of all gradients together.

    Args:
        parameters: The parameters; those without a gradient are ignored.

    Returns:
        A scalar.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    return nn.utils.get_total_norm(gradients, foreach=_together(gradients))


def _together(tensors: Sequence[Tensor]) -> bool | None:
    """Return whether torch shall treat tensors in one call. It decides itself except on the CPU."""
    return True if all(tensor.device.type == "cpu" for tensor in tensors) else None
