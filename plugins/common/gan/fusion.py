"""The affine fusion block of DF-GAN (Tao et al. 2022), which GALIP shares: how text enters a generator's features."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

AUTHORS = (
    (r"\.affine0\.", ".first."),
    (r"\.affine1\.", ".second."),
    (r"\.fc_(gamma|beta)\.linear1\.", r".\1.0."),
    (r"\.fc_(gamma|beta)\.linear2\.", r".\1.2."),
)
"""From the names in the authors' weights, DF-GAN's and GALIP's alike, to ours: rules of `common/weights/legacy.py`."""


class Affine(nn.Module):
    """gamma(c) * x + beta(c), channel by channel (eq. 4 and 5 of the paper): x (B, C, H, W), c (B, `condition`).

    gamma and beta are two-layer perceptrons about 1 and 0. gain: standard deviation that their last layer starts with,
    times sqrt(C); at the paper's 0 the block starts as the identity.
    """

    def __init__(self, condition: int, channels: int, gain: float = 0.0) -> None:
        super().__init__()
        self.gamma = self._perceptron(condition, channels, gain, start=1.0)
        self.beta = self._perceptron(condition, channels, gain, start=0.0)

    @staticmethod
    def _perceptron(condition: int, channels: int, gain: float, start: float) -> nn.Sequential:
        last = nn.Linear(channels, channels)
        nn.init.normal_(last.weight, std=gain / channels**0.5)
        nn.init.constant_(last.bias, start)
        return nn.Sequential(nn.Linear(condition, channels), nn.ReLU(), last)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        fused: Tensor = x * self.gamma(c)[..., None, None] + self.beta(c)[..., None, None]
        return fused


class Fusion(nn.Module):
    """The paper's DFBlock: affine, leaky ReLU, affine, leaky ReLU. It keeps the shape of x (B, C, H, W)."""

    def __init__(self, condition: int, channels: int, gain: float = 0.0) -> None:
        super().__init__()
        self.first = Affine(condition, channels, gain)
        self.second = Affine(condition, channels, gain)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(x, c), 0.2)
        return F.leaky_relu(self.second(x, c), 0.2)


class UpBlock(nn.Module):
    """The paper's UPBlock: nearest upsampling, then fuse, 3x3 conv, fuse, 3x3 conv beside a shortcut.

    x (B, c_in, h, w) -> (B, c_out, size, size). What works pixel by pixel (the first fusion, the 1x1 shortcut) gives
    the same before nearest upsampling as after it, at a quarter of the cost.
    """

    def __init__(self, condition: int, c_in: int, c_out: int, gain: float = 0.0) -> None:
        super().__init__()
        self.fuse1 = Fusion(condition, c_in, gain)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.fuse2 = Fusion(condition, c_out, gain)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, c: Tensor, size: int) -> Tensor:
        h: Tensor = F.interpolate(self.fuse1(x, c), size=(size, size))
        h = self.conv2(self.fuse2(self.conv1(h), c))
        shortcut: Tensor = F.interpolate(self.shortcut(x), size=(size, size))
        return shortcut + h
