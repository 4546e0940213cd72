"""Affine fusion blocks, by which text enters the generators of DF-GAN (Tao et al. 2022) and
GALIP."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

AUTHORS = (
    (r"\.affine0\.", ".first."),
    (r"\.affine1\.", ".second."),
    (r"\.fc_(gamma|beta)\.linear1\.", r".\1.0."),
    (r"\.fc_(gamma|beta)\.linear2\.", r".\1.2."),
)
"""Rules of `common/weights/legacy.py` that turn the names in the authors' weights into ours (DF-GAN
and GALIP)."""


class Affine(nn.Module):
    """Scale and shift each channel by functions of the text: gamma(c) * x + beta(c).

    gamma and beta are two-layer perceptrons, whose last biases start at 1 and 0. Source: Tao et al.
    2022, eq. 4 and 5.

    Args:
        condition: Width of the condition c.
        channels: Number C of channels of x.
        gain: sqrt(C) times the standard deviation of the initial weights of the last layers. At 0,
            as in the paper, the block starts as the identity.
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
        """Scale and shift a feature map.

        Args:
            x: Features, float (B, C, H, W).
            c: Conditions, float (B, condition).

        Returns:
            The fused features, float (B, C, H, W).
        """
        fused: Tensor = x * self.gamma(c)[..., None, None] + self.beta(c)[..., None, None]
        return fused


class Fusion(nn.Module):
    """The paper's DFBlock: affine, leaky ReLU, affine, leaky ReLU.

    Args:
        condition: Width of the condition c.
        channels: Number C of channels of x.
        gain: Initial spread of gamma and beta, as in `Affine`.
    """

    def __init__(self, condition: int, channels: int, gain: float = 0.0) -> None:
        super().__init__()
        self.first = Affine(condition, channels, gain)
        self.second = Affine(condition, channels, gain)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Fuse a feature map with the condition.

        Args:
            x: Features, float (B, C, H, W).
            c: Conditions, float (B, condition).

        Returns:
            The fused features, float (B, C, H, W).
        """
        x = F.leaky_relu(self.first(x, c), 0.2)
        return F.leaky_relu(self.second(x, c), 0.2)


class UpBlock(nn.Module):
    """The paper's UPBlock: nearest upsampling, then fuse, 3x3 conv, fuse, 3x3 conv, plus a
    shortcut.

    The first fusion and the 1x1 shortcut work pixel by pixel. They run before nearest upsampling,
    where the result is the same and, at twice the size, costs a quarter.

    Args:
        condition: Width of the condition c.
        c_in: Channels of the input.
        c_out: Channels of the output. Where it equals `c_in`, the shortcut is the identity.
        gain: Initial spread of gamma and beta, as in `Affine`.
    """

    def __init__(self, condition: int, c_in: int, c_out: int, gain: float = 0.0) -> None:
        super().__init__()
        self.fuse1 = Fusion(condition, c_in, gain)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.fuse2 = Fusion(condition, c_out, gain)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, c: Tensor, size: int) -> Tensor:
        """Upsample a feature map and fuse it with the condition.

        Args:
            x: Features, float (B, c_in, h, w).
            c: Conditions, float (B, condition).
            size: Height and width of the output, in pixels.

        Returns:
            Features, float (B, c_out, size, size).
        """
        h: Tensor = F.interpolate(self.fuse1(x, c), size=(size, size))
        h = self.conv2(self.fuse2(self.conv1(h), c))
        shortcut: Tensor = F.interpolate(self.shortcut(x), size=(size, size))
        return shortcut + h
