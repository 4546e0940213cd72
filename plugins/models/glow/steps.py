"""The steps of Glow: ActNorm, an invertible 1x1 convolution, and an affine coupling."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.plugins.models.glow.config import GlowConfig

ZERO_FACTOR = 3.0
"""Factor of the log gains of convolutions that start at zero."""

SMALL = 1e-6
"""What is added to a standard deviation."""


class Step(nn.Module):
    """A step of flow: actnorm, invertible 1x1 convolution, coupling.

    Source: Kingma & Dhariwal 2018, table 1.

    Args:
        config: The model's settings.
        channels: Channels of the values.
    """

    def __init__(self, config: GlowConfig, channels: int) -> None:
        super().__init__()
        self.norm = ActNorm(channels, config.log_factor)
        self.mix = LUMix(channels) if config.permutation == "lu" else PlainMix(channels)
        self.coupling = Coupling(config, channels)

    def forward(self, x: Tensor, grid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Apply the step.

        Args:
            x: Values, (B, C, s, s).
            grid: Text map, (B, M, s, s). None: there is none.

        Returns:
            New values, and log |det| of each image, (B,).
        """
        places = x.shape[-2] * x.shape[-1]
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 is coarser than pixel levels
            weight, log_det = self.mix()
            x = F.conv2d(self.norm(x), weight[..., None, None])
        x, of_coupling = self.coupling(x, grid)
        return x, of_coupling + places * (self.norm.log_scale.sum() + log_det)

    def reverse(self, y: Tensor, grid: Tensor | None) -> Tensor:
        """Undo the step.

        Args:
            y: Values, (B, C, s, s).
            grid: Text map, (B, M, s, s). None: there is none.

        Returns:
            The values before it.
        """
        y = self.coupling.reverse(y, grid)
        with torch.autocast(y.device.type, enabled=False):
            weight, _ = self.mix()
            inverse = torch.linalg.inv(weight.double()).to(y.dtype)
            return self.norm.reverse(F.conv2d(y, inverse[..., None, None]))


class ActNorm(nn.Module):
    """y = (x + loc) exp(log scale), one of each for a channel, set by the first batch.

    Source: Kingma & Dhariwal 2018, section 3.1.

    Args:
        channels: Channels.
        factor: Factor of the log scale.

    Attributes:
        measures: Whether the next call sets the weights by its input.
    """

    def __init__(self, channels: int, factor: float) -> None:
        super().__init__()
        self.factor, self.measures = factor, False
        self.loc = nn.Parameter(torch.zeros(channels, 1, 1))
        self.logs = nn.Parameter(torch.zeros(channels, 1, 1))

    @property
    def log_scale(self) -> Tensor:
        """The logarithms of the scales, (C, 1, 1)."""
        return self.factor * self.logs

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift.

        Args:
            x: Values, (B, C, s, s).

        Returns:
            New values.
        """
        if self.measures:
            with torch.no_grad():
                std, mean = torch.std_mean(x, (0, 2, 3), correction=0)
                self.loc.copy_(-mean[:, None, None])
                self.logs.copy_(-(std + SMALL).log()[:, None, None] / self.factor)
        return (x + self.loc) * self.log_scale.exp()

    def reverse(self, y: Tensor) -> Tensor:
        """Undo it.

        Args:
            y: Values, (B, C, s, s).

        Returns:
            The values before it.
        """
        return y * (-self.log_scale).exp() - self.loc


class PlainMix(nn.Module):
    """The weight of a 1x1 convolution, which starts as a random rotation.

    Args:
        channels: Channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_rotation(channels))

    def forward(self) -> tuple[Tensor, Tensor]:
        """Compute the determinant, in float64.

        Returns:
            The weight, (C, C), and log |det W|.
        """
        return self.weight, torch.linalg.slogdet(self.weight.double())[1].to(self.weight.dtype)


class LUMix(nn.Module):
    """The same as P L (U + diag(s)), with fixed P and signs of s.

    Source: Kingma & Dhariwal 2018, section 3.2.

    Args:
        channels: Channels.

    Attributes:
        permutation: P, (C, C).
        sign: Signs of s, (C,).
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        if torch.empty(0).is_meta:
            permutation, lower = torch.eye(channels), torch.eye(channels)
            upper = torch.eye(channels)
        else:
            permutation, lower, upper = torch.linalg.lu(_rotation(channels))
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower, self.upper = nn.Parameter(lower.tril(-1)), nn.Parameter(upper.triu(1))
        self.log_scale = nn.Parameter(diagonal.abs().log())

    def forward(self) -> tuple[Tensor, Tensor]:
        """Multiply the factors.

        Returns:
            The weight, (C, C), and log |det W|.
        """
        lower = self.lower.tril(-1) + torch.eye(len(self.sign)).to(self.lower)
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_scale.exp())
        return self.permutation @ lower @ upper, self.log_scale.sum()


def _rotation(channels: int) -> Tensor:
    """Draw a random rotation (or reflection) of a space."""
    if torch.empty(0).is_meta:
        return torch.eye(channels)
    rotation: Tensor = torch.linalg.qr(torch.randn(channels, channels))[0].contiguous()
    return rotation


class Coupling(nn.Module):
    """The second half of the channels is scaled and shifted as the first half says.

    Args:
        config: The model's settings.
        channels: Channels of the values.
    """

    def __init__(self, config: GlowConfig, channels: int) -> None:
        super().__init__()
        half, width = channels // 2, config.width
        self.additive = config.coupling == "additive"
        self.sigmoid, self.interleaved = config.scale == "sigmoid", config.interleaved
        self.first = HiddenConv(config, half + config.text.text_map, width, 3)
        self.second = HiddenConv(config, width, width, 1)
        self.last = ZeroConv(width, half if self.additive else channels, config.edges)

    def factors(self, read: Tensor, grid: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """Compute what scales and shifts the other half.

        Args:
            read: The first half, (B, C / 2, s, s).
            grid: Text map, (B, M, s, s). None: there is none.

        Returns:
            Log scale (None: there is no scale) and shift, (B, C / 2, s, s).
        """
        h = read if grid is None else torch.cat([read, grid], 1)
        out = self.last(F.relu(self.second(F.relu(self.first(h)))))
        if self.additive:
            return None, out
        if self.interleaved:
            shift, log_scale = out[:, 0::2], out[:, 1::2]
        else:
            log_scale, shift = out.chunk(2, 1)
        return F.logsigmoid(log_scale + 2) if self.sigmoid else log_scale, shift

    def forward(self, x: Tensor, grid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Apply the coupling.

        Args:
            x: Values, (B, C, s, s).
            grid: Text map, (B, M, s, s). None: there is none.

        Returns:
            New values, and log |det| of each image, (B,).
        """
        read, changed = x.chunk(2, 1)
        log_scale, shift = self.factors(read, grid)
        if log_scale is None:
            return torch.cat([read, changed + shift], 1), x.new_zeros(len(x))
        scale = log_scale.exp()
        changed = (changed + shift) * scale if self.sigmoid else changed * scale + shift
        return torch.cat([read, changed], 1), log_scale.flatten(1).sum(1)

    def reverse(self, y: Tensor, grid: Tensor | None) -> Tensor:
        """Undo the coupling.

        Args:
            y: Values, (B, C, s, s).
            grid: Text map, (B, M, s, s). None: there is none.

        Returns:
            The values before it.
        """
        read, changed = y.chunk(2, 1)
        log_scale, shift = self.factors(read, grid)
        if log_scale is None:
            changed = changed - shift
        elif self.sigmoid:
            changed = changed * (-log_scale).exp() - shift
        else:
            changed = (changed - shift) * (-log_scale).exp()
        return torch.cat([read, changed], 1)


class HiddenConv(nn.Module):
    """A hidden convolution of a coupling, with a bias or with actnorm.

    Args:
        config: The model's settings.
        inputs: Channels of the input.
        outputs: Channels of the output.
        size: Height and width of the filters.
    """

    def __init__(self, config: GlowConfig, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.flag = config.edges == "flag" and size > 1
        self.conv = nn.Conv2d(
            inputs + self.flag, outputs, size, padding=0 if self.flag else size // 2,
            bias=not config.hidden_norm,
        )  # fmt: skip
        nn.init.normal_(self.conv.weight, std=0.05)
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)
        self.norm = ActNorm(outputs, config.log_factor) if config.hidden_norm else None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution.

        Args:
            x: Values, (B, inputs, s, s).

        Returns:
            New values, (B, outputs, s, s).
        """
        h: Tensor = self.conv(flagged(x) if self.flag else x)
        return h if self.norm is None else self.norm(h)


class ZeroConv(nn.Module):
    """A 3x3 convolution that starts at zero, times exp(3 g) with a learnt g for each channel.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        edges: What it reads beyond the edges: "zeros", "ones", or "flag".
    """

    def __init__(self, inputs: int, outputs: int, edges: str) -> None:
        super().__init__()
        self.edges = edges
        self.conv = nn.Conv2d(inputs + (edges == "flag"), outputs, 3, padding=int(edges == "zeros"))
        nn.init.zeros_(self.conv.weight)
        assert self.conv.bias is not None
        nn.init.zeros_(self.conv.bias)
        self.log_gain = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the convolution.

        Args:
            x: Values, (B, inputs, s, s).

        Returns:
            New values, (B, outputs, s, s).
        """
        if self.edges == "flag":
            x = flagged(x)
        elif self.edges == "ones":
            x = F.pad(x, (1, 1, 1, 1), value=1.0)
        out: Tensor = self.conv(x) * (ZERO_FACTOR * self.log_gain).exp()
        return out


def flagged(x: Tensor) -> Tensor:
    """Pad by zeros, and add a channel that is 1 in the padding and 0 inside.

    Source: `add_edge_padding` of OpenAI's code.

    Args:
        x: Values, (B, C, h, w).

    Returns:
        (B, C + 1, h + 2, w + 2).
    """
    flag = F.pad(torch.zeros_like(x[:, :1]), (1, 1, 1, 1), value=1.0)
    return torch.cat([F.pad(x, (1, 1, 1, 1)), flag], 1)
