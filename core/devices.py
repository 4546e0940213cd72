"""Finding the device to compute on, what it can do, and the device of a network."""

from __future__ import annotations

import ctypes
import os
from itertools import chain
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from t2i.core.errors import UserError

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""The file in which Linux says how much memory a container may use."""

UNTOLD_MEMORY = 8 * 10**9
"""Bytes of memory that a machine is taken to have if it does not tell."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt, in malloc.h."""

KEPT = 1 << 30
"""Bytes of freed memory that the C library keeps on the processor, and the size of a block from
which on it does not."""


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


def available_devices() -> list[str]:
    """List the devices of this machine.

    Returns:
        Their names, such as "cpu", "cuda:0" and "cuda:1".
    """
    best = best_device()
    if best.type == "cpu":
        return ["cpu"]
    if best.type == "mps":
        return ["cpu", "mps"]
    return ["cpu", *(f"{best.type}:{i}" for i in range(torch.accelerator.device_count()))]


def named_device(name: str | torch.device | None) -> torch.device:
    """Find the device that a user names.

    Args:
        name: Its name, such as "cpu", "cuda" (the first one), "cuda:1" or "mps". None: the best
            device.

    Returns:
        The device.

    Raises:
        UserError: This machine has no such device. The message lists those that it has.
    """
    if name is None:
        return best_device()
    there = available_devices()
    try:
        device = torch.device(str(name).strip().lower())
    except RuntimeError:
        raise UserError(
            f"no device is named '{name}'; this machine has: {', '.join(there)}"
        ) from None
    index = 0 if device.index is None else device.index
    if (str(device) if device.type == "mps" else f"{device.type}:{index}") in (*there, "cpu:0"):
        return device
    reason = ""
    if device.type == "cuda" and torch.version.cuda is None:
        reason = " (the installed torch is built without CUDA)"
    raise UserError(
        f"device '{name}': this machine has no such device{reason}; it has: {', '.join(there)}"
    )


def memory_of(device: torch.device) -> int:
    """Return the memory of a device.

    Args:
        device: The device.

    Returns:
        Bytes. Of the CPU: the machine's memory, or less where a container may not use all of it;
        UNTOLD_MEMORY if the system does not tell.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    if not hasattr(os, "sysconf"):  # Windows
        return UNTOLD_MEMORY
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(whole, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no container, or "max"
        return whole


def best_precision(device: torch.device) -> Literal["no", "bf16"]:
    """Choose the precision of training on a device.

    Args:
        device: The device.

    Returns:
        "bf16" on a CUDA device that computes it itself, else "no" (float32).
    """
    if device.type != "cuda":
        return "no"
    with torch.cuda.device(device):
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"


def keep_freed_memory() -> None:
    """Make the C library keep freed memory, so that the tensors of the next step take it again.

    By default glibc gives blocks of some megabytes back to the system, which clears the pages when
    they are needed again: a tenth of the time of a training step of a small network on a processor.
    Other C libraries are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT)
        mallopt(M_TRIM_THRESHOLD, KEPT)
