"""Finding the device to compute on, and the device of a network."""

from __future__ import annotations

from itertools import chain

import torch
from torch import nn

from t2i.core.errors import UserError


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


def named_device(name: str | None) -> torch.device:
    """Find the device that the user names.

    Args:
        name: Its name in PyTorch, such as "cpu" or "cuda:1". None: the best device.

    Returns:
        The device.

    Raises:
        UserError: There is no such device here.
    """
    if name is None:
        return best_device()
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0][:80]
        raise UserError(
            f"--device {name}: it cannot be used here ({reason}); the best one is {best_device()}"
        ) from None
    return device
