"""Running statistics of batch norm."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def recompute_batchnorm(module: nn.Module) -> Iterator[None]:
    """Takes the running statistics of batch norm anew: inside the block its layers are in training mode, and after it
    their statistics are the plain mean over the batches that passed (Brock et al. 2019's "standing statistics").

    For a network whose weights were changed without training it, by averaging them.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    before = [(layer.training, layer.momentum) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
        layer.momentum = None  # the cumulative mean
    try:
        yield
    finally:
        for layer, (training, momentum) in zip(layers, before, strict=True):
            layer.train(training)
            layer.momentum = momentum
