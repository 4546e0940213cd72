"""Updates: from a loss to an optimizer's step. The one place where weights change."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from t2i.core.config import EngineConfig
from t2i.core.errors import T2IError


class NotFinite(T2IError):
    """A loss or a gradient is NaN or infinite; nothing was changed."""


def learning_rate_factor(settings: EngineConfig, updates: int, progress: float) -> float:
    """What the optimizers' learning rates are multiplied with: linear warm-up over `warmup` updates, then constant,
    or down to `lr_floor` by a cosine or a line over the stage's progress (0 to 1)."""
    warm = min(1.0, (updates + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.lr_schedule == "constant":
        return warm
    left = 1 - progress if settings.lr_schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return warm * (settings.lr_floor + (1 - settings.lr_floor) * left)


class Updates:
    """The engine as a trainer sees it (t2i.core.trainer.Engine)."""

    def __init__(
        self,
        accelerator: Accelerator,
        settings: EngineConfig,
        optimizers: dict[str, Optimizer],
        progress: Callable[[], float],
    ) -> None:
        self._accelerator = accelerator
        self._settings = settings
        self._optimizers = optimizers
        self._progress = progress
        self._parameters = {
            name: [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
            for name, optimizer in optimizers.items()
        }
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        self.counts = dict.fromkeys(optimizers, 0)
        self.skipped = 0
        self.part = 0

    @property
    def progress(self) -> float:
        return self._progress()

    def update(self, name: str, loss: Tensor) -> None:
        parameters, optimizer = self._parameters[name], self._optimizers[name]
        # Backward wants no autocast; and into these parameters only: a critic that judges for another network's
        # update gets no gradients.
        with torch.autocast(loss.device.type, enabled=False):
            self._accelerator.backward(loss / self._settings.accumulate, inputs=parameters)
        if self.part < self._settings.accumulate - 1:
            return
        scaler = self._accelerator.scaler
        if scaler is not None:
            scaler.unscale_(optimizer)
        gradients = [p.grad for p in parameters if p.grad is not None]
        self._average(parameters)
        norm = nn.utils.get_total_norm(gradients)
        # One reading of the device answers for both. fp16's scaler expects to overflow now and then and skips by
        # itself, so there only the loss is asked.
        sound = loss.isfinite() if scaler is not None else loss.isfinite() & norm.isfinite()
        if not bool(sound):
            self._refuse(name, loss, norm)
        else:
            self._step(name, optimizer, parameters, norm)
        optimizer.zero_grad(set_to_none=True)

    def _refuse(self, name: str, loss: Tensor, norm: Tensor) -> None:
        if self._settings.on_nan == "stop":
            what = "loss" if not bool(loss.isfinite()) else "gradient"
            raise NotFinite(
                f"the {what} of '{name}' is not finite (loss {loss.item():g}, gradient norm {norm.item():g})"
            )
        self.skipped += 1

    def _step(self, name: str, optimizer: Optimizer, parameters: list[nn.Parameter], norm: Tensor) -> None:
        if self._settings.grad_clip:
            nn.utils.clip_grads_with_norm_(parameters, self._settings.grad_clip, norm)
        factor = learning_rate_factor(self._settings, self.counts[name], self.progress)
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        scaler = self._accelerator.scaler
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        self.counts[name] += 1

    def _average(self, parameters: list[nn.Parameter]) -> None:
        """Averages gradients over processes, as one flat vector, after the backward pass: a double backward inside
        the loss then needs nothing special. A parameter that got no gradient here may have got one elsewhere."""
        if self._accelerator.num_processes == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        flat = self._accelerator.reduce(flat, "mean")
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)

    def shifted(self, x: Tensor) -> Tensor:
        if self._accelerator.num_processes == 1:
            return torch.roll(x, 1, 0)
        everything = torch.roll(self._accelerator.gather(x.detach()), 1, 0)
        start = self._accelerator.process_index * len(x)
        return everything[start : start + len(x)]

    def learning_rates(self) -> dict[str, float]:
        return {name: optimizer.param_groups[0]["lr"] for name, optimizer in self._optimizers.items()}
