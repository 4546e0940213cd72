"""Resampling by a factor of two with the filter [1, 3, 3, 1] (Zhang 2019; Karras et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TAPS = (1.0, 3.0, 3.0, 1.0)


def upsample(x: Tensor) -> Tensor:
    """Double the height and width. Pixels outside the image count as 0.

    Args:
        x: Images or features, (B, C, H, W).

    Returns:
        The same, (B, C, 2 H, 2 W).
    """
    kernel = 4 * _kernel(x)  # three of four places between the pixels are empty
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def downsample(x: Tensor) -> Tensor:
    """Halve the height and width. Pixels outside the image count as 0.

    Args:
        x: Images or features, (B, C, H, W), with even H and W.

    Returns:
        The same, (B, C, H / 2, W / 2).
    """
    return F.conv2d(x, _kernel(x), stride=2, padding=1, groups=x.shape[1])


class DownsampledConv(nn.Module):
    """The filter, then a 3x3 convolution at every second place. Padding is done once, before both.

    The weights have the names of the authors' code.

    Args:
        inner: Channels of the input.
        outer: Channels of the output.
    """

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(outer, inner, 3, 3)))
        self.bias = nn.Parameter(torch.zeros(outer))

    def forward(self, x: Tensor) -> Tensor:
        """Filter, convolve and halve.

        Args:
            x: Features, (B, inner, H, W), with even H and W.

        Returns:
            Features, (B, outer, H / 2, W / 2).
        """
        smooth = F.conv2d(x, _kernel(x), padding=2, groups=x.shape[1])
        return F.conv2d(smooth, self.weight, self.bias, stride=2)


def _kernel(x: Tensor) -> Tensor:
    """Return the filter for each channel of x, (C, 1, 4, 4). Its values sum to 1."""
    taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device)
    kernel = torch.outer(taps, taps)
    return (kernel / kernel.sum()).expand(x.shape[1], 1, 4, 4)
