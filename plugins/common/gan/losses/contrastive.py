"""Contrastive losses of XMC-GAN: words with regions, sentences with images, images with images.

Each compares every row of a batch with every other. Source: Zhang et al. 2021 (XMC-GAN), section 4,
and the authors' code where the two differ.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

LEAST = 1e-12  # lower bound of a squared length that is divided by


def unit(x: Tensor, dim: int = -1) -> Tensor:
    """Scale vectors to unit length. A vector of zeros stays one.

    Args:
        x: Vectors along an axis.
        dim: The axis.

    Returns:
        The vectors, of the same shape.
    """
    return x * x.square().sum(dim, keepdim=True).clamp_min(LEAST).rsqrt()


def vector_scores(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Compute the cosines of all pairs, divided by a temperature.

    Args:
        a: Vectors, float (B, D).
        b: Vectors, float (C, D).
        temperature: What the cosines are divided by.

    Returns:
        Scores, float (B, C).
    """
    return unit(a) @ unit(b).T / temperature


def word_scores(
    regions: Tensor, words: Tensor, mask: Tensor, sharpness: float, pooling: float
) -> Tensor:
    """Score how well the words of captions match the regions of images.

    Each word attends to the regions, by the softmax over regions of `sharpness` times the cosine.
    The cosines of the words and of what they attend to are pooled over the words of a caption:
    log(sum exp(pooling cos)) / pooling.

    Args:
        regions: Region vectors of B images, float (B, N, D).
        words: Word vectors of C captions, float (C, L, D).
        mask: Which words count, bool (C, L).
        sharpness: Sharpness of the attention.
        pooling: How much more the best matching words count than the others.

    Returns:
        Scores, float (B, C).
    """
    r, w = unit(regions), unit(words)
    s = torch.einsum("bnd,cld->bcln", r, w)
    alpha = (sharpness * s).softmax(3)
    # The context c = sum_n alpha_n r_n is only needed for <w, c> and |c|. Both follow from smaller
    # products, so c itself is never computed.
    dot = (alpha * s).sum(3)
    squared = torch.einsum("bcln,bnm->bclm", alpha, r @ r.transpose(1, 2)).mul(alpha).sum(3)
    cosine = dot * squared.clamp_min(LEAST).rsqrt()
    scores: Tensor = (pooling * cosine).masked_fill(~mask, -torch.inf).logsumexp(2) / pooling
    return scores


def contrast(scores: Tensor, alike: Tensor | None = None, further: Tensor | None = None) -> Tensor:
    """Compute the cross entropies of both directions: which column a row belongs to, and back.

    Args:
        scores: Scores, float (B, B). Matching pairs are on the diagonal.
        alike: Pairs that match beside the diagonal, bool (B, B), which are left out. None: none.
        further: Scores of the rows with columns that no row belongs to, float (B, K); -inf: left
            out. None: none.

    Returns:
        The sum of the two mean cross entropies, a scalar.
    """
    target = torch.arange(len(scores), device=scores.device)
    if alike is not None:
        diagonal = target[:, None] == target
        scores = scores.masked_fill(alike & ~diagonal, -torch.inf)
    rows = scores if further is None else torch.cat([scores, further], 1)
    return F.cross_entropy(rows, target) + F.cross_entropy(scores.T, target)


def equal_rows(x: Tensor) -> Tensor:
    """Find the rows that are equal: the same caption has the same sentence vector.

    Args:
        x: Vectors, float (B, D).

    Returns:
        Whether rows i and j are equal, bool (B, B).
    """
    return (x[:, None] == x).all(2)
