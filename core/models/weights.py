"""Loading the weights of a network, listing them, and hashing them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from t2i.core.errors import UserError

BASE = "t2i_base"
"""Name of the attribute that marks the parameters of a base."""


def load_state(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Load weights into a network.

    Args:
        module: The network.
        state: Its tensors by name, shared tensors once (`saved_tensors`).
        what: Name of the weights; the error message begins with it.

    Raises:
        UserError: Tensors are missing, surplus, or of another shape. The message names the first
            three.
    """
    own = saved_tensors(module)
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is surplus" for name in state if name not in own]
    problems += [
        f"{name} is {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(f"{what} does not fit the network: {'; '.join(problems[:3])}{more}")
    module.load_state_dict(dict(state), strict=False)


def owned_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of a network, with shared tensors once.

    The safetensors format does not allow tensors that share memory.

    Args:
        module: The network.

    Returns:
        Its tensors by name, detached; a shared tensor has its first name.
    """
    seen: set[int] = set()
    owned = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            owned[name] = tensor.detach()
    return owned


def saved_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of a network that are saved: those that it owns, without its base's.

    Args:
        module: The network.

    Returns:
        Its tensors by name, detached; a shared tensor has its first name.
    """
    base = {name for name, p in module.named_parameters() if is_of_base(p)}
    return {name: x for name, x in owned_tensors(module).items() if name not in base}


def mark_as_base(module: nn.Module) -> None:
    """Mark all parameters of a network as those of a base, which is saved elsewhere.

    Args:
        module: The network.
    """
    for parameter in module.parameters():
        setattr(parameter, BASE, True)


def is_of_base(parameter: nn.Parameter) -> bool:
    """Tell whether a parameter was marked as one of a base (`mark_as_base`).

    Args:
        parameter: The parameter.

    Returns:
        Whether it was.
    """
    return bool(getattr(parameter, BASE, False))


def tensor_bytes(tensor: Tensor) -> bytes:
    """Return the bytes of a tensor.

    Args:
        tensor: The tensor, on any device.

    Returns:
        Its numbers in memory order, row by row.
    """
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """Hash weights, independently of the file that they came from.

    Args:
        state: Tensors by name.

    Returns:
        SHA-256 of the names, types, shapes and numbers, in hexadecimal.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
