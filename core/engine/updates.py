"""Updates: from a loss to an optimizer's step. The one place where the weights of a run change."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from t2i.core.engine.optimizing import Optimizing, gradient_norm
from t2i.core.errors import T2IError
from t2i.core.settings import EngineConfig

SMALLEST_SCALE = 2.0**-14
"""Below this fp16's loss scale means that gradients overflow whatever the scale: they are not finite."""


class NotFinite(T2IError):
    """A loss or a gradient is NaN or infinite; nothing was changed."""


class Updates:
    """The engine as a trainer sees it (t2i.core.interfaces.trainer.Engine).

    part: the part of the batch that is at work, from 0. skipped: updates left out so far.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        settings: EngineConfig,
        optimizing: Optimizing,
        progress: Callable[[], float],
    ) -> None:
        self._accelerator = accelerator
        self._settings = settings
        self._optimizing = optimizing
        self._progress = progress
        self._scaled = False
        self.skipped = 0
        self.part = 0

    @property
    def progress(self) -> float:
        return self._progress()

    def update(self, name: str, loss: Tensor) -> None:
        chosen = self._optimizing[name]
        # A trainer may freeze parameters for a while; backward refuses those.
        optimizer, parameters = chosen.optimizer, chosen.parameters
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
        norm = gradient_norm(parameters)
        if bool(loss.isfinite() & norm.isfinite()):  # the one time that we wait for the device
            self._optimizing.clip(name, parameters, norm)
            self._step(optimizer)
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

    def _step(self, optimizer: Optimizer) -> None:
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
        present = torch.tensor(
            [p.grad is not None for p in parameters], dtype=torch.float32, device=loss.device
        )
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat(
            [loss.float().view(1), present, *(part.float().flatten() for part in parts)]
        )
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
        everyones = self._accelerator.gather(
            x[-1:].detach().contiguous()
        )  # only the last rows travel
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
        rows[self._accelerator.process_index] = (
            x.detach() + world * (x - x.detach()) if x.requires_grad else x
        )
        return torch.cat(rows)

    def _padded(self, x: Tensor) -> Tensor:
        """Word features are as long as a process's longest caption: all are padded to the longest of all processes."""
        if x.dim() == 1:
            return x
        length = torch.tensor([x.shape[1]], device=x.device)
        missing = int(self._accelerator.gather(length).max()) - x.shape[1]
        return F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing))
