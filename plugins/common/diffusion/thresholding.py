"""Dynamic thresholding of predictions of x_0.

Source: Saharia et al. 2022 (Imagen), section 2.3.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from t2i.plugins.common.diffusion.config import ThresholdedConfig
from t2i.plugins.common.diffusion.sampling import Network
from t2i.plugins.common.diffusion.time_grid import TimeGrid


def thresholded(x_0: Tensor, share: float, cap: float | None = None) -> Tensor:
    """Clip each image to [-s, s], and divide it by s.

    s is the quantile of the magnitudes of the image's values, at least 1 and at most `cap`. The
    quantile is interpolated linearly between two values.

    Args:
        x_0: Predictions of x_0, float (B, ...).
        share: The quantile, above 0 to 1.
        cap: Largest s. None: there is none.

    Returns:
        The predictions in [-1, 1].
    """
    magnitudes = x_0.flatten(1).abs()
    place = share * (magnitudes.shape[1] - 1)
    below = math.floor(place)
    # torch.quantile refuses tensors of more than 16 million values.
    largest = magnitudes.topk(magnitudes.shape[1] - below, 1).values
    low, high = largest[:, -1], largest[:, -2 if largest.shape[1] > 1 else -1]
    bound = torch.lerp(low, high, place - below).clamp(1, cap)
    bound = bound.view(-1, *[1] * (x_0.dim() - 1))
    return x_0.clamp(-bound, bound) / bound


def bounded(grid: TimeGrid, config: ThresholdedConfig) -> TimeGrid:
    """Return the grid of a sampler that thresholds, whose scheduler is given predictions of x_0.

    Args:
        grid: The times.
        config: Settings of the sampler.

    Returns:
        The grid, unchanged without `threshold`.
    """
    return grid if config.threshold is None else replace(grid, prediction="sample")


def bounding(network: Network, channels: int, config: ThresholdedConfig) -> Network:
    """Wrap a network on a `bounded` grid so that its predictions are thresholded.

    Args:
        network: The network. Its output may have further channels, which stay as they are.
        channels: Channels of x_0.
        config: Settings of the sampler.

    Returns:
        The network, unchanged without `threshold`.
    """
    share = config.threshold
    if share is None:
        return network

    def predict(u: Tensor, index: int) -> Tensor:
        output = network(u, index)
        x_0 = thresholded(output[:, :channels], share, config.threshold_cap)
        return torch.cat([x_0, output[:, channels:]], 1)

    return predict
