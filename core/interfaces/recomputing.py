"""Gradient checkpointing: networks whose blocks are computed again in the backward pass.

Of a block only the inputs are kept, not what it computed on the way.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Recomputing:
    """Base, beside `nn.Module`, of networks that call their blocks through `through`.

    Attributes:
        recomputes: Whether blocks are computed again (`recompute`).
    """

    recomputes: bool = False

    def through(self, block: nn.Module, *inputs: Any) -> Any:
        """Call a block.

        Args:
            block: The block. It must compute the same whenever it is called: dropout does, since
                the state of the random generators is restored.
            inputs: What it is called with.

        Returns:
            Its output.
        """
        if self.recomputes and torch.is_grad_enabled():
            return _again(block, *inputs)
        return block(*inputs)


def recompute(network: nn.Module, on: bool) -> bool:
    """Switch gradient checkpointing on or off in a network.

    Args:
        network: A network. Its parts of class `Recomputing` are switched, and those of diffusers
            that support it.
        on: Whether blocks are computed again.

    Returns:
        Whether it has such parts.
    """
    found = False
    for part in network.modules():
        if isinstance(part, Recomputing):
            part.recomputes, found = on, True
        elif getattr(part, "_supports_gradient_checkpointing", False):  # of diffusers
            theirs: Any = part
            if on:
                theirs.enable_gradient_checkpointing(_again)
            else:
                theirs.disable_gradient_checkpointing()
            found = True
    return found


def _again(block: nn.Module, *inputs: Any) -> Any:
    return checkpoint(block, *inputs, use_reentrant=False)
