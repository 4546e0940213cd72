"""The matching-aware gradient penalty (MA-GP) of DF-GAN (Tao et al. 2022), which GALIP shares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def matching_aware_penalty(
    scores: Tensor, inputs: Sequence[Tensor], k: float, p: float, pack: int = 1
) -> Tensor:
    """Compute the matching-aware gradient penalty k E[||grad D||^p] of matching real pairs.

    It keeps its graph, so that it can be minimised (double backward).

    Args:
        scores: Scores of the pairs, computed from `inputs`, float (B,).
        inputs: Images (or their features) and sentences, each (B, ...), requiring gradients. The
            norm is one L2 norm over all inputs of a pair together.
        k: Weight of the penalty.
        p: Power of the norm.
        pack: Number m of images of a pair (packing). Its norm is divided by sqrt(m), so that m
            images do not count m^(p/2) times.

    Returns:
        The penalty, a scalar.
    """
    gradients = torch.autograd.grad(scores.sum(), list(inputs), create_graph=True)
    squared = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0)
    if pack > 1:
        squared = squared / pack
    return k * squared.pow(p / 2).mean()  # a square root has no finite gradient at 0
