"""The networks of RealNVP and NICE.

Source: Dinh et al. 2017 and 2015.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from t2i.core.families.flow import PLAIN, FlowRun, standard_normal_log_prob
from t2i.core.interfaces.text import TextFeatures, TextShape
from t2i.plugins.common.diffusion.text_map import MAP, conditioned, resized
from t2i.plugins.common.flows.generator import FlowNetwork, SpaceFlow
from t2i.plugins.common.flows.squeeze import checkered, unchecked
from t2i.plugins.models.realnvp.config import RealNVPConfig

FAR = 80.0
"""Largest value of a logistic variable that is turned into a normal one; float32 ends there."""


def build(config: RealNVPConfig, text: TextShape, assets: Path | None = None) -> SpaceFlow:
    """Build the generator.

    Args:
        config: The model's settings.
        text: Widths of the text features.
        assets: Folder of a saved model that describes the autoencoder. None: it is built or loaded
            as the settings say.

    Returns:
        The generator.
    """
    network = RealNVP if config.layout == "realnvp" else NICE
    return SpaceFlow(config, network(config, text), assets)


class RealNVP(FlowNetwork):
    """Affine couplings over several scales, after a logit of the pixels.

    The noise has the form of the data: what a scale factors out keeps its place.

    Args:
        config: The model's settings.
        text: Widths of the text features.
    """

    def __init__(self, config: RealNVPConfig, text: TextShape) -> None:
        super().__init__(config, text)
        self.logit = 0.0 if config.autoencoder else config.logit
        self.noise_shape = (config.channels, config.side, config.side)
        self.scale = Scale(config, config.channels, config.width, config.scales)

    def forward(self, x: Tensor, text: TextFeatures, run: FlowRun = PLAIN) -> tuple[Tensor, Tensor]:
        if not self.logit:
            return super().forward(x, text, run)
        # Section 4.1: the logit of alpha + (1 - 2 alpha) y, for y = (x + 1) / 2 in [0, 1].
        y = torch.logit((1 + self.logit * x) / 2)
        log_slope = math.log(self.logit / 2) + F.softplus(y) + F.softplus(-y)
        noise, log_det = super().forward(y, text, run)
        return noise, log_det + log_slope.flatten(1).sum(1)

    def reverse(self, noise: Tensor, text: TextFeatures, run: FlowRun = PLAIN) -> Tensor:
        y = super().reverse(noise, text, run)
        return (2 * torch.sigmoid(y) - 1) / self.logit if self.logit else y

    def flow(self, x: Tensor, text: TextFeatures, run: FlowRun) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.scale(x, _maps(self, text))
        return found

    def unflow(self, noise: Tensor, text: TextFeatures, run: FlowRun) -> Tensor:
        return self.scale.reverse(noise, _maps(self, text))


Maps = Callable[[int], Tensor | None]
"""Returns the text map (B, M, side, side) of a side, or None if there is no map."""


def _maps(network: FlowNetwork, text: TextFeatures) -> Maps:
    """Return the text's map at the size of any level; each is computed once."""
    if not network.has_map:
        return lambda side: None
    grid, made = conditioned(text, MAP), dict[int, Tensor]()

    def at(side: int) -> Tensor:
        if side not in made:
            made[side] = resized(grid, side)
        return made[side]

    return at


class Scale(nn.Module):
    """One scale and all smaller ones inside it.

    Three checkerboard couplings, then three channel couplings on squeezed values; half of the
    values go on to the next scale. The last scale has four checkerboard couplings only.

    Source: Dinh et al. 2017, section 3.6.

    Args:
        config: The model's settings.
        channels: Channels of the values.
        width: Channels of the coupling networks.
        scales: Number of scales, this one among them.
    """

    def __init__(self, config: RealNVPConfig, channels: int, width: int, scales: int) -> None:
        super().__init__()
        last = scales == 1
        self.inner = nn.ModuleList(
            CheckerboardCoupling(config, channels, width, bool(i % 2)) for i in range(3 + last)
        )
        self.outer = nn.ModuleList()
        self.next: Scale | None = None
        if not last:
            self.outer.extend(
                ChannelCoupling(config, 4 * channels, 2 * width, bool(i % 2)) for i in range(3)
            )
            self.next = Scale(config, 2 * channels, 2 * width, scales - 1)

    def forward(self, x: Tensor, maps: Maps) -> tuple[Tensor, Tensor]:
        """Turn values into noise.

        Args:
            x: Values, (B, C, s, s).
            maps: The text's maps.

        Returns:
            Noise, (B, C, s, s), and log |det| of each image, (B,).
        """
        side = x.shape[-1]
        total = x.new_zeros(len(x))
        for coupling in self.inner:
            x, log_det = coupling(x, maps(side))
            total = total + log_det
        if self.next is None:
            return x, total
        x = F.pixel_unshuffle(x, 2)
        for coupling in self.outer:
            x, log_det = coupling(x, maps(side // 2))
            total = total + log_det
        x, done = checkered(F.pixel_shuffle(x, 2)).chunk(2, 1)
        x, log_det = self.next(x, maps)
        return unchecked(torch.cat([x, done], 1)), total + log_det

    def reverse(self, x: Tensor, maps: Maps) -> Tensor:
        """Turn noise into values.

        Args:
            x: Noise, (B, C, s, s).
            maps: The text's maps.

        Returns:
            Values, (B, C, s, s).
        """
        side = x.shape[-1]
        if self.next is not None:
            x, done = checkered(x).chunk(2, 1)
            x = torch.cat([self.next.reverse(x, maps), done], 1)
            x = F.pixel_unshuffle(unchecked(x), 2)
            for coupling in reversed(self.outer):
                assert isinstance(coupling, ChannelCoupling)
                x = coupling.reverse(x, maps(side // 2))
            x = F.pixel_shuffle(x, 2)
        for coupling in reversed(self.inner):
            assert isinstance(coupling, CheckerboardCoupling)
            x = coupling.reverse(x, maps(side))
        return x


class Coupling(nn.Module):
    """Base of couplings: y = (x + t) exp(s), with s = g tanh(.) and s, t from the other half.

    The paper has y = x exp(s) + t; that is the same family of maps. With `additive`, s is 0, as in
    NICE. Source: Dinh et al. 2017, eq. 7 and section 4.1; the authors' code for t.

    Args:
        config: The model's settings.
        channels: Channels of the half that the network reads, and of that which changes.
        width: Channels of the network.
        doubled: Whether half of the network's input is masked, so that it is multiplied by 2.
    """

    def __init__(self, config: RealNVPConfig, channels: int, width: int, doubled: bool) -> None:
        super().__init__()
        self.additive = config.coupling == "additive"
        self.net = ResNet(config, channels, width, channels * (2 - self.additive), doubled)
        self.gain = None if self.additive else nn.Parameter(torch.ones(channels, 1, 1))

    def factors(self, x: Tensor, grid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute s and t.

        Args:
            x: The half that does not change, (B, C, h, w).
            grid: Text map, (B, M, h, w). None: there is none.

        Returns:
            s and t, (B, C, h, w) each.
        """
        out = self.net(x, grid)
        if self.gain is None:
            return torch.zeros_like(out), out
        s, t = out.chunk(2, 1)
        return self.gain * torch.tanh(s), t


class CheckerboardCoupling(Coupling):
    """A coupling between the two colours of a chessboard.

    Args:
        config: The model's settings.
        channels: Channels of the values.
        width: Channels of the network.
        flipped: Whether the upper left place is read rather than changed.
    """

    def __init__(self, config: RealNVPConfig, channels: int, width: int, flipped: bool) -> None:
        super().__init__(config, channels, width, doubled=True)
        self.flipped = flipped

    def mask(self, x: Tensor) -> Tensor:
        """Return 1 at the places that are read and 0 elsewhere, (h, w).

        Args:
            x: Values, (B, C, h, w).

        Returns:
            The mask.
        """
        rows, columns = (torch.arange(n, device=x.device) for n in x.shape[-2:])
        return ((rows[:, None] + columns + self.flipped) % 2).to(x.dtype)

    def forward(self, x: Tensor, grid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Apply the coupling.

        Args:
            x: Values, (B, C, h, w).
            grid: Text map, (B, M, h, w). None: there is none.

        Returns:
            New values, and log |det| of each image, (B,).
        """
        read = self.mask(x)
        s, t = (value * (1 - read) for value in self.factors(x * read, grid))
        return (x + t) * s.exp(), s.flatten(1).sum(1)

    def reverse(self, y: Tensor, grid: Tensor | None) -> Tensor:
        """Undo the coupling.

        Args:
            y: Values, (B, C, h, w).
            grid: Text map, (B, M, h, w). None: there is none.

        Returns:
            The values before it.
        """
        read = self.mask(y)
        s, t = (value * (1 - read) for value in self.factors(y * read, grid))
        return y * (-s).exp() - t


class ChannelCoupling(Coupling):
    """A coupling between two halves of the channels.

    Args:
        config: The model's settings.
        channels: Channels of the values.
        width: Channels of the network.
        flipped: Whether the first half is read rather than changed.
    """

    def __init__(self, config: RealNVPConfig, channels: int, width: int, flipped: bool) -> None:
        super().__init__(config, channels // 2, width, doubled=False)
        self.flipped = flipped

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the half that is read and the half that changes."""
        first, second = x.chunk(2, 1)
        return (first, second) if self.flipped else (second, first)

    def _joined(self, read: Tensor, changed: Tensor) -> Tensor:
        return torch.cat([read, changed] if self.flipped else [changed, read], 1)

    def forward(self, x: Tensor, grid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Apply the coupling.

        Args:
            x: Values, (B, C, h, w).
            grid: Text map, (B, M, h, w). None: there is none.

        Returns:
            New values, and log |det| of each image, (B,).
        """
        read, changed = self._halves(x)
        s, t = self.factors(read, grid)
        return self._joined(read, (changed + t) * s.exp()), s.flatten(1).sum(1)

    def reverse(self, y: Tensor, grid: Tensor | None) -> Tensor:
        """Undo the coupling.

        Args:
            y: Values, (B, C, h, w).
            grid: Text map, (B, M, h, w). None: there is none.

        Returns:
            The values before it.
        """
        read, changed = self._halves(y)
        s, t = self.factors(read, grid)
        return self._joined(read, changed * (-s).exp() - t)


class ResNet(nn.Module):
    """The network of a coupling: residual blocks with weight norm, and skips to the output.

    The text map joins the input of the first convolution.

    Source: Dinh et al. 2017, sections 3.7 and 4.1; the authors' code for skips and for [x, -x].

    Args:
        config: The model's settings.
        channels: Channels of the input.
        width: Channels of the blocks.
        out: Channels of the output.
        doubled: Whether the input is multiplied by 2 after its normalisation.
    """

    def __init__(
        self, config: RealNVPConfig, channels: int, width: int, out: int, doubled: bool
    ) -> None:
        super().__init__()
        norm = config.batch_norm
        self.doubled = doubled
        self.norm_in = _norm(channels, norm)
        self.conv_in = _conv(2 * channels + config.text.text_map, width, 3)
        self.skip_in = _conv(width, width, 1)
        self.blocks = nn.ModuleList(ResidualBlock(width, norm) for _ in range(config.blocks))
        self.skips = nn.ModuleList(_conv(width, width, 1) for _ in range(config.blocks))
        self.norm_out = _norm(width, norm)
        self.conv_out = _conv(width, out, 1)

    def forward(self, x: Tensor, grid: Tensor | None) -> Tensor:
        """Compute the output.

        Args:
            x: Input, (B, C, h, w).
            grid: Text map, (B, M, h, w). None: there is none.

        Returns:
            The output, (B, out, h, w).
        """
        x = self.norm_in(x)
        if self.doubled:
            x = 2 * x
        both = F.relu(torch.cat([x, -x], 1))
        h = self.conv_in(both if grid is None else torch.cat([both, grid], 1))
        total = self.skip_in(h)
        for block, skip in zip(self.blocks, self.skips, strict=True):
            h = block(h)
            total = total + skip(h)
        out: Tensor = self.conv_out(F.relu(self.norm_out(total)))
        return out


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each after normalisation and ReLU, beside a skip.

    Args:
        width: Channels.
        norm: Whether there is batch normalisation.
    """

    def __init__(self, width: int, norm: bool) -> None:
        super().__init__()
        self.norm_in, self.norm_out = _norm(width, norm), _norm(width, norm)
        self.conv_in = _conv(width, width, 3, bias=False)
        self.conv_out = _conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block.

        Args:
            x: Values, (B, width, h, w).

        Returns:
            New values.
        """
        h = self.conv_in(F.relu(self.norm_in(x)))
        out: Tensor = x + self.conv_out(F.relu(self.norm_out(h)))
        return out


def _norm(channels: int, used: bool) -> nn.Module:
    return nn.BatchNorm2d(channels) if used else nn.Identity()


def _conv(inputs: int, outputs: int, size: int, bias: bool = True) -> nn.Module:
    """Make a convolution with weight norm, padded with zeros."""
    conv: nn.Module = weight_norm(nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias))
    return conv


class NICE(FlowNetwork):
    """NICE: additive couplings between even and odd values of a vector, then one scale a value.

    Source: Dinh et al. 2015, sections 3 and 5.1.

    Args:
        config: The model's settings.
        text: Widths of the text features.
    """

    def __init__(self, config: RealNVPConfig, text: TextShape) -> None:
        super().__init__(config, text)
        self.data_shape = (config.channels, config.side, config.side)
        dims = math.prod(self.data_shape)
        self.noise_shape, self.logistic = (dims,), config.prior == "logistic"
        network = partial(Perceptron, dims // 2, config.width, config.blocks, text.sentence)
        self.couplings = nn.ModuleList(network() for _ in range(config.couplings))
        self.log_scale = nn.Parameter(torch.zeros(dims))

    def flow(self, x: Tensor, text: TextFeatures, run: FlowRun) -> tuple[Tensor, Tensor]:
        even, odd = x.reshape(len(x), -1, 2).unbind(2)
        for coupling in self.couplings:
            even, odd = odd + coupling(even, text.sentence), even
        h = torch.cat([even, odd], 1) * self.log_scale.exp()
        log_det = self.log_scale.sum().expand(len(x))
        if not self.logistic:
            return h, log_det
        # The density of h is logistic; the noise is what has the same probability below it.
        near = h.clamp(-FAR, FAR)
        noise = -torch.special.ndtri(torch.sigmoid(-near.abs())) * near.sign()
        log_prior = -(F.softplus(h) + F.softplus(-h)).sum(1)
        return noise, log_det + log_prior - standard_normal_log_prob(noise)

    def unflow(self, noise: Tensor, text: TextFeatures, run: FlowRun) -> Tensor:
        h = noise
        if self.logistic:
            h = torch.special.log_ndtr(noise) - torch.special.log_ndtr(-noise)
        even, odd = (h * (-self.log_scale).exp()).chunk(2, 1)
        for coupling in reversed(self.couplings):
            even, odd = odd, even - coupling(odd, text.sentence)
        return torch.stack([even, odd], 2).view(len(noise), *self.data_shape)


class Perceptron(nn.Module):
    """The network of a coupling of NICE; the sentence is added before the first ReLU.

    Args:
        dims: Values of input and output.
        width: Width of the hidden layers.
        layers: Number of hidden layers.
        sentence: Width of a sentence vector.
    """

    def __init__(self, dims: int, width: int, layers: int, sentence: int) -> None:
        super().__init__()
        self.first = nn.Linear(dims, width)
        self.sentence = nn.Linear(sentence, width, bias=False)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(layers - 1))
        self.last = nn.Linear(width, dims)

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        """Compute the shift.

        Args:
            x: Values that are read, (B, dims).
            sentence: Sentence vectors, (B, D).

        Returns:
            What is added to the others, (B, dims).
        """
        h = F.relu(self.first(x) + self.sentence(sentence))
        for layer in self.hidden:
            h = F.relu(layer(h))
        out: Tensor = self.last(h)
        return out
