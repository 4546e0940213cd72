"""Batch norm in discriminators: where it is, and layer norm in its place."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def has_batchnorm(modules: Iterable[nn.Module]) -> bool:
    """Return whether any of the modules contains a batch norm.

    Args:
        modules: The modules.

    Returns:
        Whether one does.
    """
    return any(isinstance(part, _BatchNorm) for module in modules for part in module.modules())


def layernorm_for_batchnorm(module: nn.Module) -> None:
    """Replace each batch norm inside a module by a layer norm over channels, height and width.

    The layer norm has a gain (1 at first) and a bias (0) for each channel, as batch norm has. No
    random number is drawn.

    Args:
        module: The module, which is changed.
    """
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            norm = nn.GroupNorm(1, child.num_features, eps=child.eps, affine=child.affine)
            setattr(module, name, norm)
        else:
            layernorm_for_batchnorm(child)
