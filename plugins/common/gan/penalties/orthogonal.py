"""Orthogonal regularisation, as BigGAN relaxes it (Brock et al. 2019, equation 3)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def orthogonal_regularisation(weights: Iterable[Tensor]) -> Tensor:
    """Compute 1/2 sum ||(W W') o (1 - I)||^2 over weights, each as a matrix W (out, rest).

    Its gradient is 2 ((W W') o (1 - I)) W, which is what the authors' code adds to the gradients:
    that of half of the paper's squared norm.

    Args:
        weights: Weights of linear layers (out, in) and convolutions (out, in, h, w), before
            spectral normalisation.

    Returns:
        The sum, a scalar.
    """
    terms: list[Tensor] = []
    for w in weights:
        with torch.autocast(w.device.type, enabled=False):
            terms.append(_Orthogonality.apply(w.flatten(1)))
    return torch.stack(terms).sum()


def _products(w: Tensor) -> Tensor:
    """Return (W W') o (1 - I)."""
    gram = w @ w.t()
    return gram - torch.diag(gram.diagonal())


class _Orthogonality(torch.autograd.Function):
    """The term of one matrix. Its backward pass costs one product, autograd's own two."""

    @staticmethod
    def forward(ctx: Any, w: Tensor) -> Tensor:
        """Compute the term.

        Args:
            ctx: Keeps the matrices for the backward pass.
            w: The matrix, float (out, rest).

        Returns:
            The term, a scalar.
        """
        gram = _products(w)
        ctx.save_for_backward(gram, w)
        return gram.square().sum() / 2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Compute the gradient.

        Args:
            ctx: What the forward pass kept.
            grad: Gradient of the term, a scalar.

        Returns:
            2 grad ((W W') o (1 - I)) W.
        """
        gram, w = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is wanted, also through gram
            gram = _products(w)
        gradient: Tensor = 2 * grad * (gram @ w)
        return gradient
