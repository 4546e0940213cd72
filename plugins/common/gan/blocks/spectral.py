"""Spectral normalisation (Miyato et al. 2018) in the conventions of the papers' authors.

A layer's weight is divided by sigma = u' W v, an estimate of its largest singular value. W is the
weight as a matrix (out, rest); u and v follow its first singular vectors by power iteration, a pair
of half steps for each forward pass. The gradient goes through W in sigma; u and v are constants.

The authors differ in which half step comes first, in what they store, and in what they do in
evaluation: a `SpectralRule` says it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class SpectralRule:
    """A convention of spectral normalisation.

    Args:
        first: The half step that comes first. "v": v = n(W' u), u = n(W v). "u": the other way.
        evaluation: In evaluation mode, "stored" takes the stored pair, "iterate" makes the half
            steps and forgets them, "update" makes them and stores them, as in training.
        iterations: Number of pairs of half steps for each forward pass.
        eps: Constant of n(), which scales a vector to unit length.
        eps_place: n(x) is x / max(|x|, eps) for "max", x / (|x| + eps) for "sum", and
            x / sqrt(|x|^2 + eps) for "square".
        sigma_eps: Constant that is added to sigma.
        start: Number of pairs of half steps when the layer is made.
    """

    first: Literal["u", "v"] = "v"
    evaluation: Literal["stored", "iterate", "update"] = "iterate"
    iterations: int = 1
    eps: float = 1e-12
    eps_place: Literal["max", "sum", "square"] = "max"
    sigma_eps: float = 0.0
    start: int = 0

    @property
    def stores_v(self) -> bool:
        """Whether v has to be stored: it cannot be had from u."""
        return self.first == "u" or self.evaluation == "stored"

    def unit(self, x: Tensor) -> Tensor:
        """Scale a vector to unit length.

        Args:
            x: The vector, float (n,).

        Returns:
            The vector of length 1, or shorter where x is not much longer than `eps`.
        """
        if self.eps_place == "max":
            return F.normalize(x, dim=0, eps=self.eps)
        if self.eps_place == "sum":
            return x / (x.norm() + self.eps)
        return x * (x.square().sum() + self.eps).rsqrt()


BIGGAN = SpectralRule(eps=1e-6)
"""ajbrock/BigGAN-PyTorch. Its `u0` (1, out) is our `u` (out,); its `sv0` is for logging only."""

XMCGAN = SpectralRule(eps=1e-10, eps_place="square", sigma_eps=1e-10)
"""google-research/xmcgan_image_generation. Its kernels are (rest, out), its `u0` (1, out)."""

DMGAN = SpectralRule(evaluation="update", eps_place="sum")
"""StackGAN's and DM-GAN's: `weight_bar` is our `weight`, `weight_u` our `u`; `weight_v` is made
anew from u before it is read."""

LEGACY = SpectralRule(evaluation="stored")
"""torch.nn.utils.spectral_norm, as StyleGAN-T uses it: `weight_orig` is our `weight`."""

TORCH = SpectralRule(first="u", evaluation="stored", start=15)
"""torch.nn.utils.parametrizations.spectral_norm: `parametrizations.weight.original` is our
`weight`, `parametrizations.weight.0._u` our `u`."""


class Spectral(nn.Module):
    """What the layers below share. It comes before the layer's own class among the bases.

    Attributes:
        axis: The axis of the weight that counts the outputs.
        weight: The weight before normalisation.
        u: The left vector, float (out,).
        v: The right vector, float (rest,), in the order of the weight's other axes. Only where the
            rule stores it.
    """

    axis: ClassVar[int] = 0

    weight: nn.Parameter
    u: Tensor
    v: Tensor

    def prepare(self, rule: SpectralRule) -> None:
        """Make the vectors, once the weight stands.

        Args:
            rule: The convention.
        """
        self.rule = rule
        self.held = False
        out = self.weight.shape[self.axis]
        self.register_buffer("u", rule.unit(self.weight.new_empty(out).normal_()).detach())
        if rule.stores_v:
            v = self.weight.new_empty(self.weight.numel() // out).normal_()
            self.register_buffer("v", rule.unit(v).detach())
        with torch.no_grad():
            for _ in range(rule.start):
                self.sigma(store=True)

    def sigma(self, store: bool | None = None) -> Tensor:
        """Estimate the largest singular value of the weight.

        It costs two products of W and a vector, or one where the stored pair is taken.

        Args:
            store: Whether to make the half steps and to store them. None: as the mode says.

        Returns:
            The value, a scalar with a gradient through W alone. It is not negative, but where the
            stored pair does not fit the weight.
        """
        rule = self.rule
        training = self.training and not self.held
        if store is None:
            store = training or (rule.evaluation == "update" and not self.held)
        # In the precision of the weight: of half of the digits, sigma would have two or three.
        with torch.autocast(self.weight.device.type, enabled=False):
            matrix, order = self._matrix()
            u = self.u.clone()  # the buffers change in place, maybe before the backward pass
            v = self._along(self.v, order) if rule.stores_v else u
            if not store and rule.evaluation == "stored":
                return torch.dot(u, torch.mv(matrix, v))
            if rule.first == "v":
                v, u, sigma = self._iterate(matrix.t(), u)
            else:
                u, v, sigma = self._iterate(matrix, v)
            if store:
                with torch.no_grad():
                    self.u.copy_(u)
                    if rule.stores_v:
                        self.v.copy_(self._back(v, order))
            return sigma

    def scale(self) -> Tensor:
        """Compute the factor of the weight.

        Returns:
            1 / (sigma + sigma_eps), a scalar.
        """
        return 1 / (self.sigma() + self.rule.sigma_eps)

    def normalized(self) -> Tensor:
        """Divide the weight by sigma.

        Returns:
            The result, of the weight's shape.
        """
        return self.weight * self.scale()

    def _iterate(self, a: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Make the pairs of half steps y = n(A x), x = n(A' y); return y, x and x'(A' y)."""
        unit = self.rule.unit
        for _ in range(self.rule.iterations):
            with torch.no_grad():
                y = unit(torch.mv(a, x))
            product = torch.mv(a.t(), y)  # the only product with a gradient, and sigma's too
            x = unit(product.detach())
        return y, x, torch.dot(x, product)

    def _matrix(self) -> tuple[Tensor, tuple[int, ...]]:
        """Return the weight as a matrix (out, rest), and the order of its axes in the columns.

        The order is that of the memory, so that nothing is copied. A transposed convolution's
        weight is copied nevertheless, unless it is in channels_last.
        """
        strides = self.weight.stride()
        rest = [i for i in range(self.weight.ndim) if i != self.axis]
        rest.sort(key=lambda i: -strides[i])
        return self.weight.permute(self.axis, *rest).flatten(1), tuple(rest)

    def _along(self, v: Tensor, order: tuple[int, ...]) -> Tensor:
        """Return a copy of v whose places follow the columns of the matrix."""
        axes = sorted(order)
        shaped = v.view([self.weight.shape[i] for i in axes])
        return shaped.permute([axes.index(i) for i in order]).flatten().clone()

    def _back(self, v: Tensor, order: tuple[int, ...]) -> Tensor:
        """Undo `_along`."""
        shaped = v.view([self.weight.shape[i] for i in order])
        return shaped.permute([order.index(i) for i in sorted(order)]).flatten()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Keep the vectors of all spectrally normalised layers as they are in a `with` block.

    The layers then do what they do in evaluation mode, without storing. The authors iterate in
    each forward pass of a training step; this is for passes that should leave no trace.

    Args:
        module: The network.

    Yields:
        None. The layers iterate again afterwards.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, Spectral)]
    before = [layer.held for layer in layers]
    for layer in layers:
        layer.held = True
    try:
        yield
    finally:
        for layer, held in zip(layers, before, strict=True):
            layer.held = held


class SpectralLinear(Spectral, nn.Linear):
    """A linear layer.

    Args:
        c_in: Number of inputs.
        c_out: Number of outputs.
        bias: Whether it has a bias.
        rule: The convention.
    """

    def __init__(
        self, c_in: int, c_out: int, bias: bool = True, *, rule: SpectralRule = BIGGAN
    ) -> None:
        nn.Linear.__init__(self, c_in, c_out, bias)
        self.prepare(rule)

    def forward(self, x: Tensor) -> Tensor:
        """Map vectors.

        Args:
            x: Vectors, float (..., c_in).

        Returns:
            Vectors, float (..., c_out).
        """
        return F.linear(x * self.scale(), self.weight, self.bias)  # x is smaller than the weight


class SpectralEmbedding(Spectral, nn.Embedding):
    """A table of vectors. Its outputs, in the sense of u, are the rows.

    Args:
        rows: Number of rows.
        width: Width of the vectors.
        rule: The convention.
    """

    def __init__(self, rows: int, width: int, *, rule: SpectralRule = BIGGAN) -> None:
        nn.Embedding.__init__(self, rows, width)
        self.prepare(rule)

    def forward(self, ids: Tensor) -> Tensor:
        """Look up vectors.

        Args:
            ids: Rows, int64 (...).

        Returns:
            Vectors, float (..., width).
        """
        return F.embedding(ids, self.weight) * self.scale()


class SpectralConv1d(Spectral, nn.Conv1d):
    """A one-dimensional convolution.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        kernel: Size of the kernel.
        padding: Places that are added on each side.
        padding_mode: What they hold: "zeros", "circular", "reflect" or "replicate".
        bias: Whether it has a bias.
        rule: The convention.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        padding: int = 0,
        padding_mode: Literal["zeros", "circular", "reflect", "replicate"] = "zeros",
        bias: bool = True,
        *,
        rule: SpectralRule = BIGGAN,
    ) -> None:
        nn.Conv1d.__init__(
            self, c_in, c_out, kernel, padding=padding, padding_mode=padding_mode, bias=bias
        )
        self.prepare(rule)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve sequences.

        Args:
            x: Sequences, float (B, c_in, l).

        Returns:
            Sequences, float (B, c_out, l').
        """
        return self._conv_forward(x, self.normalized(), self.bias)


class SpectralConv2d(Spectral, nn.Conv2d):
    """A convolution.

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        kernel: Height and width of the kernel.
        stride: Step in pixels.
        padding: Zeros that are added on each side.
        bias: Whether it has a bias.
        rule: The convention.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        *,
        rule: SpectralRule = BIGGAN,
    ) -> None:
        nn.Conv2d.__init__(self, c_in, c_out, kernel, stride, padding, bias=bias)
        self.prepare(rule)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve maps.

        Args:
            x: Maps, float (B, c_in, h, w).

        Returns:
            Maps, float (B, c_out, h', w').
        """
        return self._conv_forward(x, self.normalized(), self.bias)


class SpectralConvTranspose2d(Spectral, nn.ConvTranspose2d):
    """A transposed convolution, whose weight is (c_in, c_out, kernel, kernel).

    Args:
        c_in: Channels of the input.
        c_out: Channels of the output.
        kernel: Height and width of the kernel.
        stride: Factor of the size.
        padding: Places that are taken off on each side of the output.
        bias: Whether it has a bias.
        rule: The convention.
    """

    axis = 1

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        *,
        rule: SpectralRule = BIGGAN,
    ) -> None:
        nn.ConvTranspose2d.__init__(self, c_in, c_out, kernel, stride, padding, bias=bias)
        self.prepare(rule)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve maps.

        Args:
            x: Maps, float (B, c_in, h, w).
            output_size: Not used.

        Returns:
            Maps, float (B, c_out, h', w').
        """
        weight = self.normalized()
        return F.conv_transpose2d(x, weight, self.bias, self.stride, self.padding)
