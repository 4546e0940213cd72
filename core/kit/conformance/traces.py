"""What computing the validation losses of a trainer leaves behind; it must be nothing."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from t2i.core.engine.local import LocalEngine
from t2i.core.engine.random_state import random_state, set_random_state
from t2i.core.interfaces.trainer import Batch, Losses, Trainer, optimizations
from t2i.core.settings.engine import EngineConfig


def validated(
    trainer: Trainer, networks: Mapping[str, nn.Module], batch: Batch
) -> tuple[list[dict[str, float]], set[str]]:
    """Compute the validation losses of a batch twice, in evaluation mode without gradients.

    Args:
        trainer: The trainer.
        networks: All its networks by name.
        batch: The batch.

    Returns:
        The losses of both calls, and the names of what the calls changed. Modes and random numbers
        are restored.
    """
    engine = LocalEngine(trainer, EngineConfig(), progress=1.0, updates=False)
    modes = {module: module.training for one in networks.values() for module in one.modules()}
    random = random_state()
    for network in networks.values():
        network.eval()
    before = _everything(trainer, networks)
    with torch.no_grad():
        losses = [numbers(trainer.validation(replace(batch), engine)) for _ in range(2)]
    after = _everything(trainer, networks)
    for module, mode in modes.items():
        module.training = mode
    set_random_state(random)
    names = before.keys() | after.keys()
    return losses, {name for name in names if not _same(before.get(name), after.get(name))}


def numbers(losses: Losses) -> dict[str, float]:
    """Convert losses to numbers.

    Args:
        losses: Scalars by name.

    Returns:
        Numbers by name.
    """
    return {name: float(loss.detach()) for name, loss in losses.items()}


def _everything(trainer: Trainer, networks: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Return copies of what a validation must not change, by name."""
    found: dict[str, Any] = {f"the random numbers of {n}": x for n, x in random_state().items()}
    for part, network in networks.items():
        for name, parameter in network.named_parameters(part):
            found[name] = parameter.detach().clone()
            found[f"the gradient of {name}"] = deepcopy(parameter.grad)
            found[f"requires_grad of {name}"] = parameter.requires_grad
        found |= {name: buffer.clone() for name, buffer in network.named_buffers(part)}
        found |= {
            f"the mode of {name}": module.training
            for name, module in network.named_modules(prefix=part)
        }
    for name, chosen in optimizations(trainer).items():
        for number, state in enumerate(chosen.optimizer.state.values()):
            found |= {
                f"the optimizer {name}, {number}.{key}": deepcopy(value)
                for key, value in state.items()
            }
    return found


def _same(one: object, other: object) -> bool:
    """Tell whether two values are equal, tensors bit for bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and bool(torch.equal(one, other))
    return bool(one == other)
