"""The affine fusion block of DF-GAN, which GALIP shares: how text enters a generator's features.

Source: Tao et al. 2022 (DF-GAN).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

AUTHORS = (
    (r"\.affine0\.", ".first."),
    (r"\.affine1\.", ".second."),
    (r"\.fc_(gamma|beta)\.linear1\.", r".\1.0."),
    (r"\.fc_(gamma|beta)\.linear2\.", r".\1.2."),
)
"""Rules that turn names in the authors' weights, of DF-GAN and GALIP alike, into ours (see
`renamed` in `common/weights/legacy.py`)."""


class Affine(nn.Module):
    """Scales and shifts each channel of a map by functions of the text: gamma(c) * x + beta(c).

    gamma and beta are two-layer perceptrons that start around 1 and 0.

    Source: Tao et al. 2022, equations 4 and 5.

    Args:
        condition: Width of the text vectors c.
        channels: Channels C of the map.
        gain: Initial standard deviation of the last layers' weights, times sqrt(C). At the paper's
            0 the block starts as the identity.
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
        """Modulate a map.

        Args:
            x: The map, float (B, C, H, W).
            c: Text vectors, float (B, condition).

        Returns:
            The modulated map, float (B, C, H, W).
        """
        fused: Tensor = x * self.gamma(c)[..., None, None] + self.beta(c)[..., None, None]
        return fused


class Fusion(nn.Module):
    """The paper's DFBlock: affine, leaky ReLU, affine, leaky ReLU.

    Args:
        condition: Width of the text vectors.
        channels: Channels C of the map.
        gain: Initial spread of the affine blocks (see `Affine`).
    """

    def __init__(self, condition: int, channels: int, gain: float = 0.0) -> None:
        super().__init__()
        self.first = Affine(condition, channels, gain)
        self.second = Affine(condition, channels, gain)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """Fuse a map with the text.

        Args:
            x: The map, float (B, C, H, W).
            c: Text vectors, float (B, condition).

        Returns:
            A map of the same shape.
        """
        x = F.leaky_relu(self.first(x, c), 0.2)
        return F.leaky_relu(self.second(x, c), 0.2)


class UpBlock(nn.Module):
    """The paper's UPBlock: upsample, then twice fuse with the text and convolve, beside a shortcut.

    Upsampling is nearest, the convolutions are 3x3. The first fusion and the 1x1 shortcut work
    pixel by pixel. They give the same before nearest upsampling as after it, at a quarter of the
    cost, and so come before it.

    Args:
        condition: Width of the text vectors.
        c_in: Channels of the input.
        c_out: Channels of the output.
        gain: Initial spread of the affine blocks (see `Affine`).
    """

    def __init__(self, condition: int, c_in: int, c_out: int, gain: float = 0.0) -> None:
        super().__init__()
        self.fuse1 = Fusion(condition, c_in, gain)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.fuse2 = Fusion(condition, c_out, gain)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, c: Tensor, size: int) -> Tensor:
        """Enlarge a map.

        Args:
            x: The map, float (B, c_in, h, w).
            c: Text vectors, float (B, condition).
            size: Height and width of the result.

        Returns:
            The larger map, float (B, c_out, size, size).
        """
        h: Tensor = F.interpolate(self.fuse1(x, c), size=(size, size))
        h = self.conv2(self.fuse2(self.conv1(h), c))
        shortcut: Tensor = F.interpolate(self.shortcut(x), size=(size, size))
        return shortcut + h
