"""Colour consistency of images of several sizes (Zhang et al. 2018, StackGAN++, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

COVARIANCE = 5.0
"""Weight of the covariances beside the means (the paper's lambda_2 / lambda_1)."""


def colours(images: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean and the covariance of the colours of each image's pixels.

    Args:
        images: Images, float (B, 3, H, W).

    Returns:
        Means (B, 3, 1) and covariances (B, 3, 3), of the population of pixels.
    """
    pixels = images.flatten(2)
    mean = pixels.mean(2, keepdim=True)
    centred = pixels - mean
    return mean, centred @ centred.transpose(1, 2) / pixels.shape[2]


def colour_consistency(images: Sequence[Tensor]) -> Tensor:
    """Compute how much the colours of each image differ from those of the next smaller one.

    The smaller image is the target: no gradient reaches it. Source: Zhang et al. 2018 (StackGAN++),
    equation 9, but as the authors' code has it: errors are averaged over all entries.

    Args:
        images: Images of each scale, float (B, 3, S, S), the smallest first. At least two scales.

    Returns:
        The sum over neighbouring scales of MSE(means) + 5 MSE(covariances), a scalar.
    """
    terms = []
    for small, large in pairwise(images):
        with torch.no_grad():
            mean, covariance = colours(small)
        ours = colours(large)
        terms.append(F.mse_loss(ours[0], mean) + COVARIANCE * F.mse_loss(ours[1], covariance))
    return torch.stack(terms).sum()
