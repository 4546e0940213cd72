"""Finding the device to compute on, and the device of a network."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn


def device_of(module: nn.Module) -> torch.device:
    """Find the device of a network.

    Args:
        module: The network.

    Returns:
        The device of its first parameter, else of its first buffer, else the CPU.
    """
    first = next(chain(module.parameters(), module.buffers()), None)
    return torch.device("cpu") if first is None else first.device


def best_device() -> torch.device:
    """Find the best device of this machine.

    Returns:
        The accelerator if there is one, else the CPU.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")
