"""The log-likelihood of diffusion models on pixels, by the probability flow.

Source: Song et al. 2021, section 4.3 and appendix D.2; Grathwohl et al. 2019 (FFJORD).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.schedule import MOST_NOISE
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.likelihood import Likelihood, dequantised
from t2i.core.interfaces.noise import Noise, PromptNoise
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.text import TextFeatures
from t2i.core.settings import Config
from t2i.plugins.common.diffusion.config import LEAST_TOLERANCE, GuidedConfig
from t2i.plugins.common.diffusion.denoiser import (
    Denoiser,
    exact_type,
    largest_ratio,
    least_ratio,
)
from t2i.plugins.common.diffusion.flow import Flow
from t2i.plugins.common.diffusion.ode import Field as Slope
from t2i.plugins.common.diffusion.ode import Solver


class FlowLikelihoodConfig(Config):
    """Settings of the log-likelihood by the probability flow."""

    method: Literal["rk45", "rk23"] = "rk45"
    """Adaptive method of the solver: "rk45" is of order 5, "rk23" of order 3."""

    rtol: float = Field(1e-5, ge=LEAST_TOLERANCE)
    """Relative tolerance of a step, at least 1e-9."""

    atol: float = Field(1e-5, ge=LEAST_TOLERANCE)
    """Absolute tolerance of a step, at least 1e-9."""

    probes: int = Field(1, ge=1)
    """Random vectors of an image with which the trace is estimated. More of them reduce the spread
    of the estimate."""

    sigma_min: float = Field(1e-3, gt=0)
    """Noise level of the model's density, as sigma / alpha: the density is that of x_0 + sigma_min
    eps. A schedule may end earlier."""


class FlowLikelihood(Likelihood):
    """-log p of images under the probability flow that leads to N(0, I).

    For u = x_t / norm and theta = arctan(sigma / alpha), log p(u) at the least noise is log N(u; 0,
    I) at the most noise plus the integral of div(du / dtheta). The divergence is estimated by v^T J
    v with v of +1 and -1 (Rademacher), one v for an image along its whole path.

    Source: Song et al. 2021, eq. 39 and 40.

    Args:
        generator: A diffusion generator on pixels.
        settings: Settings by name, as in `FlowLikelihoodConfig`.

    Raises:
        UserError: A setting is unknown or wrong, or x_0 of the generator is not its images on
            another scale.
    """

    kind = "estimate"

    def __init__(self, generator: Generator, settings: Mapping[str, Any]) -> None:
        if not isinstance(generator, DiffusionGenerator):
            raise UserError(f"the flow's likelihood is of diffusion models, not {generator.family}")
        self.config = FlowLikelihoodConfig.of(settings, "likelihood")
        self.generator = generator
        stretch = _stretch(generator)
        if stretch is None:
            raise UserError(
                "the likelihood of images is that of pixels: this model's x_0 are latents, whose "
                "density says nothing about pixels"
            )
        self.stretch = stretch
        self.least = max(self.config.sigma_min, least_ratio(generator.schedule))
        self.most = largest_ratio(generator.schedule, MOST_NOISE)

    def protocol(self) -> Mapping[str, Any]:
        # The noise of the density is the schedule's least one where that is above `sigma_min`.
        least = float(f"{self.least:.3g}")
        return {"dequantisation": "uniform", **self.config.model_dump(), "sigma_min": least}

    def nats(self, images: Tensor, text: TextFeatures, noise: Noise) -> Tensor:
        x, volume = dequantised(images, noise)
        x_0 = self.generator.encode(x)
        # The density of x is that of x_0 times the stretch of each value.
        volume -= x[0].numel() * math.log(self.stretch)
        probes = [
            torch.where(noise.uniform("probe", k, x_0.shape[1:]) < 0.5, -1.0, 1.0)
            for k in range(self.config.probes)
        ]
        return volume - self.log_density(x_0, text, probes)

    def log_density(self, x_0: Tensor, text: TextFeatures, probes: Sequence[Tensor]) -> Tensor:
        """Compute log p of x_0, whose noise level is `sigma_min`.

        Args:
            x_0: Images as the network sees them, (B, *noise_shape).
            text: Features of B captions, conditioned.
            probes: Random vectors of each image for the trace, (B, *noise_shape) each. The mean of
                v^T J v over them takes the place of the trace of J.

        Returns:
            log p, float64 (B,), on the CPU.
        """
        first, last = math.atan(self.least), math.atan(self.most)
        u = x_0.to(exact_type(x_0.device)) * math.cos(first)
        flow = Flow(Denoiser(self.generator, self._request(text), GuidedConfig()), self.least)
        packed = torch.cat([u.flatten(1), u.new_zeros(len(u), 1)], 1)
        solver = Solver(self.config.method, self.config.rtol, self.config.atol)
        packed = solver.solve(_with_trace(flow, u.shape[1:], probes), packed, first, last)
        noise, integral = packed[:, :-1].double().cpu(), packed[:, -1].double().cpu()
        dims = noise.shape[1]
        prior = -0.5 * noise.square().sum(1) - 0.5 * dims * math.log(2 * math.pi)
        return prior + integral + dims * math.log(math.cos(first))

    def _request(self, text: TextFeatures) -> Request:
        """Make a request for the network, without guidance. Its noise is not read."""
        return Request(text=text, noise=PromptNoise(0, tuple((i, 0) for i in range(len(text)))))


def flow_likelihood(generator: Generator, settings: Mapping[str, Any]) -> FlowLikelihood | None:
    """Build the log-likelihood of a diffusion generator, if it is one of images.

    Args:
        generator: The generator.
        settings: Settings by name, as in `FlowLikelihoodConfig`.

    Returns:
        The likelihood. None: the generator's x_0 are latents, whose density says nothing about
        pixels.

    Raises:
        UserError: A setting is unknown or wrong.
    """
    if isinstance(generator, DiffusionGenerator) and _stretch(generator) is None:
        return None
    return FlowLikelihood(generator, settings)


def _with_trace(flow: Slope, shape: torch.Size, probes: Sequence[Tensor]) -> Slope:
    """Add the divergence of a flow to it: d(u, integral) / dtheta = (slope, divergence)."""

    def field(theta: Tensor, packed: Tensor) -> Tensor:
        with torch.enable_grad():
            u = packed[:, :-1].detach().view(-1, *shape).requires_grad_()
            slope = flow(theta, u)
            trace = divergence(slope, u, probes)
        return torch.cat([slope.detach().flatten(1), trace[:, None]], 1)

    return field


def divergence(slope: Tensor, u: Tensor, probes: Sequence[Tensor]) -> Tensor:
    """Estimate the divergence of a field by Hutchinson's estimator.

    Args:
        slope: Values of the field at `u`, (B, ...), with their graph.
        u: The points, (B, ...).
        probes: Random vectors v with E v v^T = I, (B, ...) each.

    Returns:
        The mean of v^T J v over the probes, (B,).
    """
    total = u.new_zeros(len(u))
    for number, probe in enumerate(probes, 1):
        v = probe.to(u)
        (product,) = torch.autograd.grad((slope * v).sum(), u, retain_graph=number < len(probes))
        total = total + (product * v).flatten(1).sum(1)
    return total / len(probes)


def _stretch(generator: DiffusionGenerator) -> float | None:
    """Return the factor by which x_0 differs from images in [-1, 1]: 1, or 1/2 for [0, 1].

    None: they are no images on another scale.
    """
    size = (1, 3, generator.image_size, generator.image_size)
    device = generator.device
    with torch.no_grad():
        low, middle, high = (
            generator.encode(torch.full(size, value, device=device)) for value in (-1.0, 0.0, 1.0)
        )
    steps = torch.stack([middle - low, high - middle]) if low.shape == size else None
    if steps is None or float(steps.max() - steps.min()) > 1e-5 or float(steps.min()) <= 0:
        return None
    return float(steps.mean())
