"""Weights: into a network, out of it, and what tells them apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from t2i.core.errors import UserError


def load_state(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Loads weights; UserError naming the first three tensors that are missing, surplus or
    misshapen."""
    own = owned_tensors(module)
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
    """The state dict with shared tensors once, under their first name (safetensors refuses shared
    memory)."""
    seen: set[int] = set()
    owned = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            owned[name] = tensor.detach()
    return owned


def tensor_bytes(tensor: Tensor) -> bytes:
    """A tensor's numbers as they lie in memory, row by row."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the tensors as they are used, whatever file they came from: names, types, shapes
    and numbers."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()
