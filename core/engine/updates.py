"""Updates: from a loss to an optimizer's step. The one place where weights change."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from t2i.core.errors import T2IError
from t2i.core.settings import EngineConfig

SMALLEST_SCALE = 2.0**-14
"""Below this fp16's loss scale means that gradients overflow whatever the scale: they are not finite."""


class NotFinite(T2IError):
    """A loss or a gradient is NaN or infinite; nothing was changed."""


def learning_rate_factor(settings: EngineConfig, step: int, progress: float, warm: float) -> float:
    """What the learning rates are multiplied with at step `step` of a stage: linear warm-up over `warmup` steps, then
    constant, or down to `lr_floor` by a cosine or a line over the rest of the stage, or halved after equal parts of it.

    progress: of the stage, 0 to 1. warm: the progress at which the warm-up ended.
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


class Updates:
    """The engine as a trainer sees it (t2i.core.interfaces.trainer.Engine).

    part: the part of the batch that is at work, from 0. skipped: updates left out so far.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        settings: EngineConfig,
        optimizers: Mapping[str, Optimizer],
        progress: Callable[[], float],
    ) -> None:
        self._accelerator = accelerator
        self._settings = settings
        self._optimizers = optimizers
        self._progress = progress
        self._parameters: dict[str, list[nn.Parameter]] = {
            name: [p for group in optimizer.param_groups for p in group["params"]]
            for name, optimizer in optimizers.items()
        }
        for optimizer in optimizers.values():
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        self._scaled = False
        self.skipped = 0
        self.part = 0

    @property
    def progress(self) -> float:
        return self._progress()

    def set_learning_rates(self, factor: float) -> None:
        """The optimizers' own learning rates times `factor`."""
        for optimizer in self._optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * factor

    def update(self, name: str, loss: Tensor) -> None:
        optimizer = self._optimizers[name]
        # A trainer may freeze parameters for a while; backward refuses those.
        parameters = [p for p in self._parameters[name] if p.requires_grad]
        # Backward wants no autocast; and into these parameters only: a critic that judges for another network's
        # update gets no gradients.
        with torch.autocast(loss.device.type, enabled=False):
            self._accelerator.backward(loss / self._settings.accumulate, inputs=parameters)
        if self.part < self._settings.accumulate - 1:
            return
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.unscale_(optimizer)
            self._scaled = True
        loss = self._averaged(parameters, loss.detach())
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if bool(loss.isfinite() & norm.isfinite()):  # the one time that we wait for the device
            self._step(optimizer, parameters, norm)
        else:
            self._refuse(name, loss, norm)
        optimizer.zero_grad(set_to_none=True)
        if self._settings.accumulate == 1:
            self.end_step()

    def end_step(self) -> None:
        """Adapts fp16's loss scale; not while gradients under the present one are still being accumulated."""
        if self._accelerator.scaler is not None and self._scaled:
            self._accelerator.scaler.update()
        self._scaled = False

    def _step(self, optimizer: Optimizer, parameters: Sequence[nn.Parameter], norm: Tensor) -> None:
        if self._settings.grad_clip:
            nn.utils.clip_grads_with_norm_(parameters, self._settings.grad_clip, norm)
        if self._accelerator.scaler is None:
            optimizer.step()
        else:
            self._accelerator.scaler.step(optimizer)

    def _refuse(self, name: str, loss: Tensor, norm: Tensor) -> None:
        """Leaves an update out, or stops. With fp16 a gradient that overflows is the scaler's to mend: it lowers its
        scale, and only when that has no end is the gradient at fault."""
        scaler, finite = self._accelerator.scaler, bool(loss.isfinite())
        if scaler is not None and finite and scaler.get_scale() > SMALLEST_SCALE:
            return
        if self._settings.on_nan == "stop":
            what = "gradient" if finite else "loss"
            raise NotFinite(
                f"the {what} of '{name}' is not finite (loss {float(loss):g}, gradient norm {float(norm):g})"
            )
        self.skipped += 1

    def _averaged(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Averages the gradients over processes, and returns the averaged loss, so that all processes judge alike.

        As one flat vector, after the backward pass: a double backward inside the loss then needs nothing special.
        A parameter may have a gradient in some processes only; where none has one it is left without.
        """
        processes = self._accelerator.num_processes
        if processes == 1:
            return loss
        present = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=loss.device)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([loss.float().view(1), present, *(part.float().flatten() for part in parts)])
        flat = self._accelerator.reduce(flat, "mean")
        start = 1 + len(parameters)
        for parameter, part, shared in zip(parameters, parts, flat[1:start].tolist(), strict=True):
            if shared:
                parameter.grad = part.copy_(flat[start : start + part.numel()].view_as(part))
            start += part.numel()
        mean: Tensor = flat[0]
        return mean

    def shifted(self, x: Tensor) -> Tensor:
        if self._accelerator.num_processes == 1:
            return torch.roll(x, 1, 0)
        x = self._padded(x)
        everyones = self._accelerator.gather(x[-1:].detach().contiguous())  # only the last rows travel
        before = everyones[self._accelerator.process_index - 1].unsqueeze(0)
        return torch.cat([before, x[:-1]])

    def gathered(self, x: Tensor) -> Tensor:
        world = self._accelerator.num_processes
        if world == 1:
            return x
        x = self._padded(x)
        rows = list(self._accelerator.gather(x.detach().contiguous()).split(len(x)))
        # The same numbers, with `world` times the gradient: the updates average over processes, and no other process
        # has a gradient for these rows.
        rows[self._accelerator.process_index] = x.detach() + world * (x - x.detach()) if x.requires_grad else x
        return torch.cat(rows)

    def _padded(self, x: Tensor) -> Tensor:
        """Word features are as long as a process's longest caption: all are padded to the longest of all processes."""
        if x.dim() == 1:
            return x
        length = torch.tensor([x.shape[1]], device=x.device)
        missing = int(self._accelerator.gather(length).max()) - x.shape[1]
        return F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing))

    def learning_rates(self) -> dict[str, float]:
        return {name: optimizer.param_groups[0]["lr"] for name, optimizer in self._optimizers.items()}
