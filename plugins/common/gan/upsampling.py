"""Nearest upsampling and a 3x3 convolution in one, at a lower cost."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class UpConv3x3(nn.Conv2d):
    """Nearest upsampling to twice the size, then a 3x3 convolution without bias.

    After nearest upsampling, only four of the nine values under the kernel differ. So the sums of
    the kernel's weights are the 4x4 kernel of a transposed convolution of x itself, which gives the
    same result at 4/9 of the cost.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Upsample and convolve.

        Args:
            x: Features, float (B, c_in, h, w).

        Returns:
            Features, float (B, c_out, 2h, 2w).
        """
        left = F.pad(self.weight, (0, 1)) + F.pad(self.weight, (1, 0))
        kernel = F.pad(left, (0, 0, 0, 1)) + F.pad(left, (0, 0, 1, 0))
        return F.conv_transpose2d(x, kernel.flip(2, 3).transpose(0, 1), stride=2, padding=1)
