"""Sampling chains on diffusers' schedulers: what the diffusion samplers share.

A sampler chooses a scheduler and how one step of it is called; this module runs the chain: initial noise, guidance,
the scheduler's steps, decoding. Every random number comes from the keyed source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.generator import DiffusionGenerator, Generator
from t2i.core.noise import PromptNoise
from t2i.core.sampler import Guide, Progress
from t2i.core.schedule import DiscreteSchedule
from t2i.core.text import TextFeatures

PREDICTION_TYPES = {"epsilon": "epsilon", "sample": "sample", "v": "v_prediction"}
"""Our word for what a network predicts -> diffusers'."""

Spacing = Literal["trailing", "leading", "linspace"]

Network = Callable[[Tensor, Tensor], Tensor]
"""network(x_t (B, ...), t (B,)) -> the guided prediction."""

Step = Callable[[Any, Tensor, int, Tensor, list[torch.Generator]], Tensor]
"""step(scheduler, prediction, index into the chain, x_t, one random generator an image) -> x_{t-1}."""


@dataclass(frozen=True)
class Chain:
    """Some of a schedule's times, tau_1 < ... < tau_S, and the betas of the chain that visits only those.

    diffusers' own spacing takes the gap between two times to be T // S, which is wrong wherever S does not divide T.
    A chain of S steps whose abar are those of the times chosen is exact for any S (Nichol & Dhariwal 2021, eq. 19):
    beta_i = 1 - abar_{tau_i} / abar_{tau_{i-1}}.
    """

    times: tuple[int, ...]
    betas: tuple[float, ...]
    prediction: str

    @property
    def settings(self) -> dict[str, Any]:
        """Of diffusers' scheduler. Nothing is clipped: latents have no bounds, pixels are clamped in the end."""
        return {
            "num_train_timesteps": len(self.times),
            "trained_betas": list(self.betas),
            "prediction_type": PREDICTION_TYPES[self.prediction],
            "clip_sample": False,
        }


def chain_of(generator: Generator, steps: int | None, spacing: Spacing = "trailing") -> Chain:
    """The chain of `steps` of the generator's times (None: all). UserError if there are not so many, or if the
    schedule has no discrete steps."""
    assert isinstance(generator, DiffusionGenerator)
    schedule = generator.schedule
    if not isinstance(schedule, DiscreteSchedule):
        raise UserError(
            f"{type(schedule).__name__} is no schedule of discrete steps, which this sampler needs: "
            "choose one for continuous noise levels"
        )
    longest = len(schedule)
    if steps is not None and steps > longest:
        raise UserError(f"{steps} sampling steps: the model was trained with {longest}; ask for at most so many")
    times = _times(longest, steps or longest, spacing)
    abar = [1.0, *schedule.alphas_cumprod[list(times)].tolist()]
    betas = tuple(1 - after / before for before, after in pairwise(abar))
    return Chain(times, betas, generator.prediction)


def _times(longest: int, steps: int, spacing: Spacing) -> tuple[int, ...]:
    """`steps` of 0 .. longest - 1, ascending. trailing: ends with the last, as sampling begins at pure noise;
    leading: begins with the first (the DDIM paper's); linspace: both."""
    if spacing == "trailing":
        return tuple(round((i + 1) * longest / steps) - 1 for i in range(steps))
    if spacing == "leading":
        return tuple(i * (longest // steps) for i in range(steps))
    return tuple(round(i * (longest - 1) / max(steps - 1, 1)) for i in range(steps))


def guided(
    generator: Generator, text: TextFeatures, null: TextFeatures | None, scale: float, guide: Guide | None
) -> Network:
    """The generator under classifier-free guidance (thesis 2.30; Ho & Salimans 2022) and, if given, a classifier's.

    Both branches run in one batch; where `scale` is 1 the unconditional one cancels, and is not run.
    """
    assert isinstance(generator, DiffusionGenerator)
    if scale == 1:

        def network(x_t: Tensor, t: Tensor) -> Tensor:
            prediction: Tensor = generator(x_t, t, text)
            return prediction

    else:
        if null is None:
            raise UserError(f"guidance {scale} needs the features of no caption: pass null, or set guidance to 1")
        both = TextFeatures.cat([null, text])

        def network(x_t: Tensor, t: Tensor) -> Tensor:
            without, given = generator(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
            return torch.lerp(without, given, scale)

    return _with_classifier(generator, network, text, guide) if guide else network


def _with_classifier(generator: DiffusionGenerator, network: Network, text: TextFeatures, guide: Guide) -> Network:
    """Classifier guidance (thesis 2.29; Dhariwal & Nichol 2021, algorithm 2): eps^ = eps - sigma g, where g is the
    gradient of log p(y | x_t) with respect to x_t. In terms of x_0 that is x_0 + (sigma^2 / alpha) g, and of v,
    v - (sigma / alpha) g, since alpha^2 + sigma^2 = 1."""

    def shifted(x_t: Tensor, t: Tensor) -> Tensor:
        shape = (-1, *[1] * (x_t.dim() - 1))
        alpha, sigma = (value.view(shape) for value in (generator.schedule.alpha(t), generator.schedule.sigma(t)))
        factor = {"epsilon": -sigma, "sample": sigma**2 / alpha, "v": -sigma / alpha}[generator.prediction]
        return network(x_t, t) + factor * guide(x_t, t, text)

    return shifted


def run_chain(
    generator: Generator, scheduler: Any, chain: Chain, step: Step, network: Network, noise: PromptNoise,
    progress: Progress | None,
) -> Tensor:  # fmt: skip
    """Images, from x_T ~ N(0, I) down the chain; `scheduler` was made with the chain's settings."""
    assert isinstance(generator, DiffusionGenerator)
    steps = len(chain.times)
    scheduler.set_timesteps(steps)
    x = noise.normal("x_T", 0, generator.noise_shape)
    random = noise.generators("chain", 0)  # one an image, read on from step to step
    for number, index in enumerate(reversed(range(steps))):
        t = torch.full((len(x),), chain.times[index], dtype=torch.long, device=x.device)
        x = step(scheduler, network(x, t), index, x, random)
        if progress:
            progress(number + 1, steps)
    return generator.decode(x)
