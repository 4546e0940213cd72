"""Choose the blocks of a network whose weights are gathered and dropped together (FSDP)."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet

from torch import nn

LEAST = 1 << 20
"""Smallest number of trained parameters of a block. Smaller ones stay whole during a step."""


def outermost(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Leave out networks that are parts of others, and take lists of networks apart.

    Args:
        modules: Networks by name.

    Returns:
        Networks that have no part in common, by name.
    """
    apart: dict[str, nn.Module] = {}
    for name, module in modules.items():
        apart |= dict(_callable(name, module))
    inside = {part for module in apart.values() for part in module.modules() if part is not module}
    unique: dict[str, nn.Module] = {}
    for name, module in apart.items():
        if module not in inside and module not in unique.values():
            unique[name] = module
    return unique


def _callable(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
        yield name, module
        return
    for part, child in module.named_children():
        yield from _callable(f"{name}.{part}", child)


def blocks_of(network: nn.Module, trained: AbstractSet[nn.Parameter]) -> list[nn.Module]:
    """Choose the blocks of a network: its smallest parts that are large enough.

    A block is only ever called, and so it has no method of its own beside `forward`. Its parameters
    are used nowhere else.

    Args:
        network: The network.
        trained: The parameters that are sharded.

    Returns:
        The blocks, none inside another.
    """
    uses = Counter(id(p) for module in network.modules() for p in module.parameters(recurse=False))
    tied = {p for p in network.parameters() if uses[id(p)] > 1}
    return _blocks(network, trained, tied)


def _blocks(
    module: nn.Module, trained: AbstractSet[nn.Parameter], tied: AbstractSet[nn.Parameter]
) -> list[nn.Module]:
    children = () if _of_torch(module) else module.children()
    inner = [block for child in children for block in _blocks(child, trained, tied)]
    if inner or not _is_called(module):
        return inner
    parameters = set(module.parameters())
    size = sum(p.numel() for p in parameters & trained)
    return [module] if size >= LEAST and not parameters & tied else []


def _of_torch(module: nn.Module) -> bool:
    """Return whether torch defines a module, other than one that only calls its children."""
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return type(module).__module__.startswith("torch.nn") and not isinstance(module, containers)


def _is_called(module: nn.Module) -> bool:
    """Return whether a module is only ever called.

    A list, a sequence or a layer of torch's is not: its owner may use what is in it.
    """
    if isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict)) or _of_torch(module):
        return False
    return not any(
        inspect.isroutine(getattr(type(module), name, None))
        for name in dir(type(module))
        if not name.startswith("_") and name not in dir(nn.Module)
    )
