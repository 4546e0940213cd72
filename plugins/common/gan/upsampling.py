"""Nearest upsampling followed by a convolution, computed as one cheaper convolution."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class UpConv3x3(nn.Conv2d):
    """Nearest upsampling to twice the size, followed by a 3x3 convolution without bias.

    Of the nine values under the kernel only four differ, because upsampling copies them. With the
    weights of equal values added up beforehand, the result is a 4x4 transposed convolution of x
    itself, at 4/9 of the cost.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Upsample and convolve a map.

        Args:
            x: The map, float (B, c_in, h, w).

        Returns:
            The map, float (B, c_out, 2h, 2w).
        """
        left = F.pad(self.weight, (0, 1)) + F.pad(self.weight, (1, 0))
        kernel = F.pad(left, (0, 0, 0, 1)) + F.pad(left, (0, 0, 1, 0))
        return F.conv_transpose2d(x, kernel.flip(2, 3).transpose(0, 1), stride=2, padding=1)
