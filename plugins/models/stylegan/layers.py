"""Layers with equalised learning rates, and the modulated convolution.

Weights are drawn from N(0, 1), and a layer multiplies them by a constant that keeps variances. So
Adam changes the weights of all layers at the same relative speed.

Source: Karras et al. 2018 (equalised learning rates), 2020 (modulation).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from t2i.plugins.common.fir import blur, downsample

SLOPE = 0.2
GAIN = math.sqrt(2)
"""Factor after a leaky ReLU, which restores the variance. It is applied to what goes into the
activation, which gives the same numbers and saves a pass over the features."""


def unit_moment(x: Tensor) -> Tensor:
    """Scale vectors so that their mean square is 1.

    Args:
        x: Vectors, float (B, D).

    Returns:
        Vectors of the same shape.
    """
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def activate(x: Tensor, clamp: float | None) -> Tensor:
    """Apply a leaky ReLU, and limit the result.

    Args:
        x: Features of any shape, already multiplied by the activation's gain.
        clamp: Largest absolute value of the result. None: no limit.

    Returns:
        The activations.
    """
    x = F.leaky_relu(x, SLOPE)
    return x if clamp is None else x.clamp(-clamp, clamp)


class EqualLinear(nn.Module):
    """A linear layer with an equalised learning rate.

    Args:
        c_in: Width of the input.
        c_out: Width of the output.
        rate: Factor of the learning rate, relative to other layers.
        bias: Initial bias.
        std: Initial standard deviation of the effective weights, times sqrt(c_in).
        active: Whether a leaky ReLU follows.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        rate: float = 1.0,
        bias: float = 0.0,
        std: float = 1.0,
        *,
        active: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in) * (std / rate))
        self.bias = nn.Parameter(torch.full((c_out,), bias / rate))
        self.active = active
        gain = rate * GAIN if active else rate
        self.weight_gain, self.bias_gain = gain / math.sqrt(c_in), gain

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: Input, float (B, c_in).

        Returns:
            Output, float (B, c_out).
        """
        bias = self.bias if self.bias_gain == 1 else self.bias * self.bias_gain
        h = F.linear(x, self.weight * self.weight_gain, bias)
        return F.leaky_relu(h, SLOPE) if self.active else h


class EqualConv(nn.Module):
    """A convolution with an equalised learning rate, followed by a leaky ReLU unless it is linear.

    With `halve` a filter and the removal of every second place come with it: a 3x3 convolution is
    computed at the places that are kept only, a 1x1 convolution after them.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        kernel: Height and width of the kernel, 1 or 3.
        gain: Factor of the result. An active layer has a factor sqrt(2) beside it.
        clamp: Limit of the activations at gain 1. None: no limit.
        active: Whether there are a bias and a leaky ReLU.
        halve: Whether the output has half the size.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        gain: float = 1.0,
        clamp: float | None = None,
        *,
        active: bool = True,
        halve: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(c_out)) if active else None
        self.gain = gain * GAIN if active else gain
        self.weight_gain = self.gain / math.sqrt(c_in * kernel**2)
        self.clamp = None if clamp is None else clamp * gain
        self.padding, self.halve = kernel // 2, halve

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: Features, float (B, c_in, H, W).

        Returns:
            Features, float (B, c_out, H, W); half as large with `halve`.
        """
        weight, padding, stride = self.weight * self.weight_gain, self.padding, 1
        if self.halve and padding:  # all padding is done before the filter
            x, padding, stride = blur(x, 2), 0, 2
        elif self.halve:
            x = downsample(x)
        bias = None if self.bias is None else self.bias * self.gain
        h = F.conv2d(x, weight, bias, stride, padding)
        return h if bias is None else activate(h, self.clamp)


def modulated(x: Tensor, weight: Tensor, style: Tensor, *, double: bool = False) -> Tensor:
    """Convolve with weights whose input channels are scaled by each image's style.

    The scales are applied to x, so all images share one convolution and one copy of the weights.

    Args:
        x: Features, float (B, I, H, W).
        weight: Weights, float (O, I, k, k), k = 1 or 3.
        style: Scales, float (B, I).
        double: Whether the features are upsampled and filtered, for k = 3.

    Returns:
        Features, float (B, O, H, W); twice as large with `double`.
    """
    x = x * style[..., None, None]
    if not double:
        return F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    # Zero insertion and convolution are one transposed convolution, which mirrors the kernel. The
    # authors' code leaves it mirrored.
    h = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return blur(h, 1, gain=4)


def demodulation(weight: Tensor, style: Tensor) -> Tensor:
    """Compute the factors that restore unit variance after a modulated convolution.

    Source: Karras et al. 2020, equation 3.

    Args:
        weight: Weights, float (O, I, k, k).
        style: Scales of the input channels, float (B, I).

    Returns:
        Factors, float (B, O).
    """
    # The sum over the kernel does not depend on the image, so it comes first.
    return (F.linear(style.square(), weight.square().sum((2, 3))) + 1e-8).rsqrt()


class Affine(nn.Module):
    """StyleGAN2's style of a layer: one equalised linear map of w, with bias 1.

    Args:
        w: Width of w.
        channels: Number of channels that are scaled.
    """

    def __init__(self, w: int, channels: int) -> None:
        super().__init__()
        self.linear = EqualLinear(w, channels, bias=1.0)

    def forward(self, w: Tensor) -> Tensor:
        """Compute a style.

        Args:
            w: Latent vectors, float (B, w).

        Returns:
            Scales, float (B, channels).
        """
        style: Tensor = self.linear(w)
        return style


class SecondOrder(Affine):
    """StyleGAN-T's style of a layer, a polynomial of second order in w: a(w) b(w) + c(w).

    Source: Sauer et al. 2023, section 3.1.

    Args:
        w: Width of w.
        channels: Number of channels that are scaled.
    """

    def __init__(self, w: int, channels: int) -> None:
        super().__init__(w, 3 * channels)

    def forward(self, w: Tensor) -> Tensor:
        a, b, c = self.linear(w).chunk(3, dim=1)
        style: Tensor = a * b + c
        return style


class StyledConv(nn.Module):
    """A modulated 3x3 convolution, noise, bias and a leaky ReLU.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        w: Width of w.
        size: Height and width of the output.
        affine: Class of the style.
        gain: Factor of the result.
        clamp: Limit of the activations at gain 1. None: no limit.
        double: Whether the output is twice as large as the input.
        noise: Whether noise is added.

    Attributes:
        noise_const: The noise in evaluation mode, float (size, size).
    """

    noise_const: Tensor

    def __init__(
        self,
        c_in: int,
        c_out: int,
        w: int,
        size: int,
        affine: type[Affine] = Affine,
        gain: float = 1.0,
        clamp: float | None = None,
        *,
        double: bool = False,
        noise: bool = True,
    ) -> None:
        super().__init__()
        self.affine = affine(w, c_in)
        self.weight = nn.Parameter(torch.randn(c_out, c_in, 3, 3))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.doubles, self.gain, self.size = double, gain, size
        self.clamp = None if clamp is None else clamp * gain
        self.strength = nn.Parameter(torch.zeros(())) if noise else None
        if noise:
            self.register_buffer("noise_const", torch.randn(size, size))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        """Apply the layer.

        Args:
            x: Features, float (B, c_in, h, h).
            w: Latent vectors, float (B, w).
            noise: Noise, float (B, 1, size, size). None: `noise_const`. Ignored in a layer without
                noise.

        Returns:
            Features, float (B, c_out, size, size).
        """
        style, gain = self.affine(w), GAIN * self.gain
        h = modulated(x, self.weight, style, double=self.doubles)
        factor = (gain * demodulation(self.weight, style))[..., None, None]
        shift = (gain * self.bias)[:, None, None]
        if self.strength is not None:
            h = torch.addcmul((gain * self.strength) * self._noise(noise), h, factor) + shift
        else:
            h = torch.addcmul(shift, h, factor)
        return activate(h, self.clamp)

    def _noise(self, noise: Tensor | None) -> Tensor:
        return self.noise_const if noise is None else noise


class ToRGB(nn.Module):
    """A modulated 1x1 convolution to three colours, not demodulated.

    Args:
        c_in: Channels of the input.
        w: Width of w.
        affine: Class of the style.
        std: Initial standard deviation of the weights.
        clamp: Limit of the colours. None: no limit.
    """

    def __init__(
        self,
        c_in: int,
        w: int,
        affine: type[Affine] = Affine,
        std: float = 1.0,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.affine = affine(w, c_in)
        self.weight = nn.Parameter(torch.randn(3, c_in, 1, 1) * std)
        self.bias = nn.Parameter(torch.zeros(3))
        self.gain, self.clamp = 1 / math.sqrt(c_in), clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Compute an image.

        Args:
            x: Features, float (B, c_in, h, h).
            w: Latent vectors, float (B, w).

        Returns:
            Colours, float (B, 3, h, h).
        """
        # Three colours for many channels: weights of each image cost less than scaled features.
        kernels = self.weight.flatten(1) * (self.gain * self.affine(w)).unsqueeze(1)
        image = torch.einsum("boi,bihw->bohw", kernels, x) + self.bias[:, None, None]
        return image if self.clamp is None else image.clamp(-self.clamp, self.clamp)
