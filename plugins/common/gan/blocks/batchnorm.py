"""Running statistics of batch normalisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from t2i.core.interfaces.trainer import Batch


@contextmanager
def recompute_batchnorm(module: nn.Module) -> Iterator[None]:
    """Recompute the running statistics of batch normalisation from the batches of a `with` block.

    Inside the block the layers are in training mode; after it, their statistics are the plain mean
    over the batches that passed. This is for a network whose weights were averaged rather than
    trained, so that its statistics do not fit.

    Source: "standing statistics" of Brock et al. 2019.

    Args:
        module: The network.

    Yields:
        None. The modes of the layers are restored at the end.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
    before = [(layer.training, layer.momentum) for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.train()
        layer.momentum = None  # PyTorch then takes the plain mean of all batches
    try:
        yield
    finally:
        for layer, (training, momentum) in zip(layers, before, strict=True):
            layer.train(training)
            layer.momentum = momentum


def recalibrate(
    network: nn.Module, sample: Callable[[Batch], object], batches: Callable[[], Batch], count: int
) -> None:
    """Recompute batch norm's statistics with the averaged weights, at the end of a stage.

    Without this they belong to the last weights.

    Args:
        network: The generator's network.
        sample: Function that samples images for a batch with it.
        batches: Function that returns the next batch (`Trainer.finish`).
        count: Number of batches. 0: nothing is done.
    """
    if not count:
        return
    with recompute_batchnorm(network):
        for _ in range(count):
            sample(batches())
