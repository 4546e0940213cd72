"""Nearest upsampling before a convolution, at the cost of a smaller one."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class UpConv3x3(nn.Conv2d):
    """conv3x3(nearest upsampling of x to twice the size), without bias: x (B, c_in, h, w) -> (B, c_out, 2h, 2w).

    Of the nine values under the kernel only four differ, being copies of one another: added up beforehand, the kernel
    is the 4x4 one of a transposed convolution of x itself, at 4/9 of the cost.
    """

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        left = F.pad(self.weight, (0, 1)) + F.pad(self.weight, (1, 0))
        kernel = F.pad(left, (0, 0, 0, 1)) + F.pad(left, (0, 0, 1, 0))
        return F.conv_transpose2d(x, kernel.flip(2, 3).transpose(0, 1), stride=2, padding=1)
