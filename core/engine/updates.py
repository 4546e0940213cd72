"""Turn a loss into an optimizer's step; only here do the weights of a run change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from t2i.core.engine.casting import forget_casts
from t2i.core.engine.optimizing import Optimizing
from t2i.core.errors import T2IError
from t2i.core.settings.engine import EngineConfig

if TYPE_CHECKING:
    from t2i.core.engine.sharding import Sharding

SMALLEST_SCALE = 2.0**-14
"""An fp16 loss scale this low means that gradients overflow at any scale: they are not finite."""


class NotFinite(T2IError):
    """A loss or a gradient is NaN or infinite; no weights were changed."""


class Updates:
    """The engine that trainers get (`t2i.core.interfaces.trainer.Engine`).

    Args:
        accelerator: Device, precision and processes.
        settings: The stage's settings.
        optimizing: The trainer's optimizers.
        progress: Returns the progress of the stage, 0 to 1.
        sharding: The weights, shared out over processes. None: each process has all.

    Attributes:
        part: Index of the present micro-batch, from 0 (`accumulate`); the loop sets it.
        skipped: Number of updates that were skipped since the loop last set it to 0.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        settings: EngineConfig,
        optimizing: Optimizing,
        progress: Callable[[], float],
        sharding: Sharding | None = None,
    ) -> None:
        self._accelerator = accelerator
        self._sharding = sharding
        self._settings = settings
        self._optimizing = optimizing
        self._progress = progress
        self._scaled = False
        self.skipped = 0
        self.part = 0

    @property
    def progress(self) -> float:
        """Progress of the stage, 0 to 1."""
        return self._progress()

    def update(self, name: str, loss: Tensor) -> None:
        """Backpropagate a loss into one optimizer's parameters; after the last micro-batch, step.

        The step averages gradients over processes, checks that loss and gradients are finite, and
        clips. All processes must call this together.

        Args:
            name: Name of the optimizer.
            loss: Scalar.

        Raises:
            NotFinite: The loss or a gradient is not finite and `on_nan` is "stop".
        """
        chosen = self._optimizing[name]
        # A trainer may freeze parameters for a while; backward refuses those.
        optimizer, parameters = chosen.optimizer, chosen.parameters
        # Backward must run outside autocast.
        with torch.autocast(loss.device.type, enabled=False):
            self._backward(loss / self._settings.accumulate, parameters)
        if self.part < self._settings.accumulate - 1:
            return
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.unscale_(optimizer)
            self._scaled = True
        average = self._sharding.averaged if self._sharding else self._averaged
        loss = average(parameters, loss.detach())
        norm = self._optimizing.norm(parameters)
        if bool(loss.isfinite() & norm.isfinite()):  # the only place that waits for the device
            self._optimizing.clip(name, parameters, norm)
            self._step(optimizer)
        else:
            self._refuse(name, loss, norm)
        forget_casts()
        optimizer.zero_grad(set_to_none=True)
        if self._sharding:
            self._sharding.refresh()
        if self._settings.accumulate == 1:
            self.end_step()

    def _backward(self, loss: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        """Run the backward pass. Only these parameters get gradients.

        A critic that is used in the generator's loss gets none. Weights that are shared out get all
        of theirs, of which those of others are dropped.
        """
        if self._sharding:
            self._sharding.backward(loss, parameters)
        else:
            self._accelerator.backward(loss, inputs=parameters)

    def end_step(self) -> None:
        """Adapt the loss scale of fp16; called when no gradients under the present scale remain."""
        if self._accelerator.scaler is not None and self._scaled:
            self._accelerator.scaler.update()
        self._scaled = False

    def _step(self, optimizer: Optimizer) -> None:
        if self._accelerator.scaler is None:
            optimizer.step()
        else:
            self._accelerator.scaler.step(optimizer)

    def _refuse(self, name: str, loss: Tensor, norm: Tensor) -> None:
        """Skip an update that is not finite, or raise `NotFinite` (`on_nan`).

        With fp16 an overflowing gradient is no error at first: the scaler skips the step and lowers
        its scale. It counts as not finite once the scale is down to `SMALLEST_SCALE`.
        """
        scaler, finite = self._accelerator.scaler, bool(loss.isfinite())
        if scaler is not None and finite and scaler.get_scale() > SMALLEST_SCALE:
            return
        if self._settings.on_nan == "stop":
            what = "gradient" if finite else "loss"
            raise NotFinite(
                f"the {what} of '{name}' is not finite (loss {float(loss):g}, "
                f"gradient norm {float(norm):g})"
            )
        self.skipped += 1

    def _averaged(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Average the gradients over processes and return the averaged loss.

        All processes then see the same numbers and decide alike. The gradients travel as one flat
        vector after the backward pass, so a double backward inside the loss needs no special care.
        A parameter that has a gradient in some processes only gets the average, with 0 for the
        others. One that has no gradient in any process stays without.
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
        """Roll the global batch by one row, which gives mismatched pairs.

        Args:
            x: This process's rows (B, ...). Axis 1 may differ in length between processes.

        Returns:
            The rolled rows (B, ...), axis 1 padded with zeros to the longest of all processes. No
            gradient crosses processes.
        """
        if self._accelerator.num_processes == 1:
            return torch.roll(x, 1, 0)
        x = self._padded(x)
        everyones = self._accelerator.gather(
            x[-1:].detach().contiguous()
        )  # only the last rows travel
        before = everyones[self._accelerator.process_index - 1].unsqueeze(0)
        return torch.cat([before, x[:-1]])

    def gathered(self, x: Tensor) -> Tensor:
        """Return the rows of the global batch.

        Args:
            x: This process's rows (B, ...). Axis 1 may differ in length between processes.

        Returns:
            The rows of all processes (processes * B, ...), axis 1 padded with zeros to the longest.
            Gradients reach only this process's rows, multiplied by the number of processes.
        """
        world = self._accelerator.num_processes
        if world == 1:
            return x
        x = self._padded(x)
        rows = list(self._accelerator.gather(x.detach().contiguous()).split(len(x)))
        # The same numbers with `world` times the gradient: updates average gradients over
        # processes, and no other process has a gradient for these rows.
        rows[self._accelerator.process_index] = (
            x.detach() + world * (x - x.detach()) if x.requires_grad else x
        )
        return torch.cat(rows)

    def _padded(self, x: Tensor) -> Tensor:
        """Pad axis 1 to the longest of all processes.

        Word features are as long as the longest caption of a process.
        """
        if x.dim() == 1:
            return x
        length = torch.tensor([x.shape[1]], device=x.device)
        missing = int(self._accelerator.gather(length).max()) - x.shape[1]
        return F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing))
