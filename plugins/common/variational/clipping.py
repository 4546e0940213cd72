"""AdamW that clips gradients and skips steps whose gradients are too large.

Source: Child 2021 (VDVAE), section 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW


class SkippingAdamW(AdamW):
    """AdamW that clips the norm of all gradients, and skips a step if it is above a threshold.

    Args:
        parameters: The parameters, or groups of them.
        clip: Largest norm of all gradients. 0: they are not clipped.
        skip: Norm from which on a step is skipped. 0: none is.
        **settings: Settings of AdamW.
    """

    def __init__(
        self, parameters: Iterable[Any], clip: float, skip: float, **settings: Any
    ) -> None:
        super().__init__(parameters, **settings)
        self.clip, self.skip = clip, skip

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Clip and step, or skip the step.

        Args:
            closure: Function that computes the loss again, as of any optimizer.

        Returns:
            What AdamW returns. None for a step that is skipped.
        """
        given = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        if given and (self.clip or self.skip):
            norm = nn.utils.get_total_norm([p.grad for p in given if p.grad is not None])
            if self.skip and not bool(norm < self.skip):
                return None
            if self.clip:
                nn.utils.clip_grads_with_norm_(given, self.clip, norm)
        return super().step(closure)
