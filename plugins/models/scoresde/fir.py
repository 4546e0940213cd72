"""A 3x3 convolution that halves, after the filter [1, 3, 3, 1] (Karras et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.plugins.common.fir import blur


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
        smooth = blur(x, 2)
        return F.conv2d(smooth, self.weight, self.bias, stride=2)
