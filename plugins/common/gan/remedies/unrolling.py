"""Unrolling (Metz et al. 2017): the generator's loss at a discriminator that is K updates ahead."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call


class _Calls(nn.Module):
    """Holds modules, and calls a function that uses them: `functional_call` then swaps weights."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.held = nn.ModuleDict(modules)

    def forward(self, function: Callable[[], Tensor]) -> Tensor:
        return function()


def unrolled(
    modules: Mapping[str, nn.Module],
    discriminator_loss: Callable[[], Tensor],
    generator_loss: Callable[[], Tensor],
    steps: int,
    lr: float,
) -> Tensor:
    """Compute the generator's loss after K updates of the discriminator, through these updates.

    theta^(k+1) = theta^k - lr grad L_D(theta^k, G), and the loss is L_G(theta^K, G). Its gradient
    with respect to G has two terms: that of L_G itself, and that of the updates, which depend on G
    (second order). The modules are unchanged afterwards: weights are swapped for the calls alone,
    and buffers (spectral norm's vectors) are copies.

    Args:
        modules: The discriminator's modules. Both functions use them.
        discriminator_loss: Computes L_D on images that carry the generator's gradients.
        generator_loss: Computes L_G.
        steps: K.
        lr: Learning rate of the updates.

    Returns:
        The loss, a scalar.
    """
    calls = _Calls(modules)
    theta = {name: p for name, p in calls.named_parameters() if p.requires_grad}
    buffers = {name: b.clone() for name, b in calls.named_buffers()}
    now: dict[str, Tensor] = dict(theta)
    for _ in range(steps):
        loss = functional_call(calls, {**now, **buffers}, (discriminator_loss,))
        gradients = torch.autograd.grad(
            loss, list(now.values()), create_graph=True, allow_unused=True
        )
        now = {
            name: p if g is None else p - lr * g
            for (name, p), g in zip(now.items(), gradients, strict=True)
        }
    result: Tensor = functional_call(calls, {**now, **buffers}, (generator_loss,))
    return result
