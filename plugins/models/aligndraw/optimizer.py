"""RMSprop as the authors of alignDRAW wrote it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


class RMSprop(Optimizer):
    """Divides gradients by the root of their running mean square plus 1e-6, inside the root.

    Each tensor's gradient is clipped alone, by its own norm. (torch's RMSprop adds its epsilon
    outside the root.)

    Args:
        groups: Groups of parameters.
        lr: Learning rate.
        clip: Largest norm of a tensor's gradient. 0: it is not clipped.
        decay: Decay rate of the running mean.
    """

    def __init__(
        self, groups: list[dict[str, Any]], lr: float, clip: float, decay: float = 0.9
    ) -> None:
        super().__init__(groups, {"lr": lr, "clip": clip, "decay": decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.

        Args:
            closure: Not used.

        Returns:
            None.
        """
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, group)
        return None

    def _update(self, p: nn.Parameter, group: dict[str, Any]) -> None:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["square"] = torch.zeros_like(p)
        norm = p.grad.norm()
        clip = group["clip"]
        gradient = p.grad * torch.where(norm < clip, 1.0, clip / norm) if clip else p.grad
        square = (
            state["square"]
            .mul_(group["decay"])
            .addcmul_(gradient, gradient, value=1 - group["decay"])
        )
        p.sub_(group["lr"] * gradient / (square + 1e-6).sqrt())
