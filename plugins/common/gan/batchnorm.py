"""Recompute the running statistics of batch norm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def recompute_batchnorm(module: nn.Module) -> Iterator[None]:
    """Recompute the running statistics of all batch norm layers of a network, inside a `with`
    block.

    Use it for a network whose weights changed without training, such as by averaging (EMA). Inside
    the block the batch norm layers are in training mode; after it they have their former mode and
    momentum.

    Source: Brock et al. 2019 ("standing statistics").

    Args:
        module: The network. Run it on some batches inside the block: the new statistics are the
            plain mean over them.

    Yields:
        None.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    before = [(layer.training, layer.momentum) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
        layer.momentum = None  # None: PyTorch takes the cumulative mean
    try:
        yield
    finally:
        for layer, (training, momentum) in zip(layers, before, strict=True):
            layer.train(training)
            layer.momentum = momentum
