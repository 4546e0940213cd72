"""Sampling chains on diffusers' schedulers: what the diffusion samplers share.

A sampler chooses a scheduler and how one step of it is called; `ChainSampler` runs the chain: initial noise, guidance,
the scheduler's steps, decoding. Every random number comes from the keyed source.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.schedule import DiscreteSchedule, MixingSchedule, Prediction, Schedule, named_schedule
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Request
from t2i.core.interfaces.sampler import Sampler
from t2i.core.interfaces.text import TextFeatures
from t2i.plugins.common.diffusion.config import NOISIEST, DenoisingConfig, DiffusionSamplerConfig, Ending

PREDICTION_TYPES = {"epsilon": "epsilon", "sample": "sample", "v": "v_prediction"}
"""Our word for what a network predicts -> diffusers'."""

Network = Callable[[Tensor, float], Tensor]
"""network(x_t (B, ...), t, an index or a noise level) -> the guided prediction."""


def schedule_of(config: DenoisingConfig) -> Schedule:
    """The noise schedule that a model's settings name, or whose betas they list."""
    if config.trained_betas:
        return DiscreteSchedule(torch.tensor(config.trained_betas, dtype=torch.float64, device="cpu"))
    return named_schedule(config.schedule, config.timesteps)


@dataclass(frozen=True)
class Chain:
    """Some of a schedule's times, tau_1 < ... < tau_S, as a schedule of S steps.

    diffusers' own spacing takes the gap between two times to be T // S, which is wrong wherever S does not divide T.
    A schedule whose abar are those of the times chosen is exact for any S and any scheduler (Nichol & Dhariwal 2021,
    eq. 19): beta_i = 1 - abar_{tau_i} / abar_{tau_{i-1}}.

    norms: sqrt(alpha^2 + sigma^2) of the schedule at each time. diffusers' schedulers know only schedules where that is
    1: they are given x_t / norm, for which abar = alpha^2 / norm^2.
    final: the abar that the last step leads to, 1 being that of x_0 itself.
    """

    times: tuple[float, ...]
    abar: tuple[float, ...]
    norms: tuple[float, ...]
    prediction: Prediction
    final: float = 1.0

    @property
    def settings(self) -> dict[str, Any]:
        """Of diffusers' scheduler. Nothing is clipped: latents have no bounds, pixels are clamped in the end."""
        betas = [1 - after / before for before, after in pairwise([1.0, *self.abar])]
        return {
            "num_train_timesteps": len(self.times),
            "trained_betas": betas,
            "prediction_type": PREDICTION_TYPES[self.prediction],
        }

    def ending(self, generator: Generator, end: Ending) -> Chain:
        """For schedulers whose last step may lead to the schedule's first time instead of x_0: Stable Diffusion's do
        (`set_alpha_to_one=False` in diffusers)."""
        assert isinstance(generator, DiffusionGenerator)
        schedule = generator.schedule
        if end == "x_0":
            return self
        if not isinstance(schedule, DiscreteSchedule):
            raise UserError("end = first: this model's noise levels are continuous, there is no first one: use end=x_0")
        return replace(self, final=float(schedule.alphas_cumprod[0]))

    def as_epsilon(self) -> Chain:
        """For schedulers that do not know a network that predicts x_0: `ChainSampler` translates."""
        return replace(self, prediction="epsilon") if self.prediction == "sample" else self

    def translated(self, prediction: Prediction, output: Tensor, x: Tensor, index: int) -> Tensor:
        """A network's output at x (of norm 1), as what the chain's scheduler expects."""
        if prediction == self.prediction:
            return output
        abar = self.abar[index]
        eps: Tensor = (x - abar**0.5 * output) / (1 - abar) ** 0.5
        return eps


def clipping(clip: float | None) -> dict[str, Any]:
    """How diffusers' schedulers are told to cut predictions of x_0 to [-clip, clip], or not to."""
    return {"clip_sample": clip is not None, "clip_sample_range": clip or 1.0}


def chain_of(generator: Generator, config: DiffusionSamplerConfig) -> Chain:
    """The chain of `config.steps` of the generator's times (None: all of them). UserError if there are not so many."""
    assert isinstance(generator, DiffusionGenerator)
    schedule = generator.schedule
    if isinstance(schedule, DiscreteSchedule):
        times = _times(_longest(schedule, config), config)
        abar = schedule.alphas_cumprod[list(times)].tolist()
        return Chain(times, tuple(abar), (1.0,) * len(times), generator.prediction)
    if not isinstance(schedule, MixingSchedule):
        raise UserError(f"{type(schedule).__name__}: the samplers know DiscreteSchedule and MixingSchedule")
    if config.steps is None:
        raise UserError("this model's noise levels are continuous: name a number of sampling steps")
    most = config.noisiest or NOISIEST
    t = torch.linspace(1 / config.steps, 1, config.steps, dtype=torch.float64).clamp_max(most / (1 + most))
    norms = (schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2).sqrt()
    abar = (schedule.alpha(t) / norms).square().tolist()
    return Chain(tuple(t.tolist()), tuple(abar), tuple(norms.tolist()), generator.prediction)


def _longest(schedule: DiscreteSchedule, config: DiffusionSamplerConfig) -> int:
    """How many of a schedule's times a chain chooses from: those below `noisiest`, if it can spare any."""
    longest, steps = len(schedule), config.steps
    if steps is None or steps == longest:
        return longest
    if steps > longest:
        raise UserError(f"{steps} sampling steps: the model was trained with {longest}; ask for at most so many")
    ratios = ((1 - schedule.alphas_cumprod) / schedule.alphas_cumprod).sqrt()
    return longest if config.noisiest is None else max(steps, int((ratios <= config.noisiest).sum()))


def _times(longest: int, config: DiffusionSamplerConfig) -> tuple[int, ...]:
    """`config.steps` of 0 .. longest - 1, ascending."""
    steps = config.steps or longest
    if config.spacing == "trailing":
        return tuple(round((i + 1) * longest / steps) - 1 for i in range(steps))
    if config.spacing == "leading":
        return tuple(min(i * (longest // steps) + config.offset, longest - 1) for i in range(steps))
    return tuple(round(i * (longest - 1) / max(steps - 1, 1)) for i in range(steps))


def guided(generator: Generator, request: Request, config: DiffusionSamplerConfig) -> Network:
    """The generator under classifier-free guidance (thesis 2.30; Ho & Salimans 2022) and, if given, a classifier's.

    Both branches run in one batch; the unconditional one is not run where it cancels (guidance 1) or guidance is off.
    """
    assert isinstance(generator, DiffusionGenerator)
    text, null, guide = request.text, request.null, request.guide
    if config.guidance != 1 and null is None:
        raise UserError(f"guidance {config.guidance} needs the features of no caption: pass null, or set guidance to 1")
    both = TextFeatures.cat([null, text]) if config.guidance != 1 and null is not None else None
    schedule, (least, most) = generator.schedule, config.interval

    def network(x_t: Tensor, time: float) -> Tensor:
        t = torch.full((len(x_t),), time, device=x_t.device)  # of an index: long; of a noise level: float
        level = (time + 1) / len(schedule) if isinstance(schedule, DiscreteSchedule) else time
        if both is None or not least <= level <= most:
            prediction: Tensor = generator(x_t, t, text)
        else:
            without, given = generator(torch.cat([x_t, x_t]), torch.cat([t, t]), both).chunk(2)
            prediction = _rescaled(torch.lerp(without, given, config.guidance), given, config.rescale)
        return prediction + _classifier_term(generator, x_t, t, guide(x_t, t, text)) if guide else prediction

    return network


def _rescaled(guided: Tensor, given: Tensor, share: float) -> Tensor:
    """Lin et al. 2024, eq. 15 and 16: guidance makes predictions too large, and pictures over-exposed."""
    if not share:
        return guided
    dims = tuple(range(1, guided.dim()))
    back = guided * (given.std(dims, keepdim=True) / guided.std(dims, keepdim=True))
    return torch.lerp(guided, back, share)


def _classifier_term(generator: DiffusionGenerator, x_t: Tensor, t: Tensor, gradient: Tensor) -> Tensor:
    """Classifier guidance (thesis 2.29; Dhariwal & Nichol 2021, algorithm 2): eps^ = eps - sigma g, where g is the
    gradient of log p(y | x_t) with respect to x_t. In terms of x_0 that is x_0 + (sigma^2 / alpha) g, and of v,
    v - (sigma / alpha) g, since alpha^2 + sigma^2 = 1."""
    shape = (-1, *[1] * (x_t.dim() - 1))
    alpha, sigma = (value.view(shape) for value in (generator.schedule.alpha(t), generator.schedule.sigma(t)))
    factor = {"epsilon": -sigma, "sample": sigma**2 / alpha, "v": -sigma / alpha}[generator.prediction]
    return factor * gradient


class ChainSampler(Sampler):
    """A sampler that is a scheduler of diffusers and the way to call one step of it."""

    config: DiffusionSamplerConfig

    @abstractmethod
    def scheduler(self, chain: Chain) -> Any:
        """The scheduler, made with the chain's settings."""

    @abstractmethod
    def step(self, scheduler: Any, output: Tensor, t: Tensor, x_t: Tensor, random: list[torch.Generator]) -> Tensor:
        """x_{t-1}, from the prediction at the scheduler's own timestep t; `random` has one generator an image."""

    def chain(self, generator: Generator) -> Chain:
        return chain_of(generator, self.config)

    def check(self, generator: Generator) -> None:
        self.chain(generator)

    def sample(self, generator: Generator, request: Request) -> Tensor:
        """Images, from x_T ~ N(0, I) down the chain."""
        assert isinstance(generator, DiffusionGenerator)
        chain = self.chain(generator)
        scheduler, network = self.scheduler(chain), guided(generator, request, self.config)
        noise = request.noise
        scheduler.set_timesteps(len(chain.times))
        x = noise.start("x_T", generator.noise_shape)
        if scheduler.init_noise_sigma != 1:  # it works on x_t / alpha, whose noise is of sigma / alpha
            x = x * (float(scheduler.init_noise_sigma) ** 2 + 1) ** 0.5
        random = noise.generators("chain", 0)  # one an image, read on from step to step
        for number, timestep in enumerate(scheduler.timesteps):
            index = int(timestep)
            unit = scheduler.scale_model_input(x, timestep)
            output = network(unit if chain.norms[index] == 1 else unit * chain.norms[index], chain.times[index])
            translated = chain.translated(generator.prediction, output, unit, index)
            x = self.step(scheduler, translated, timestep, x, random)
            request.step_done(number + 1, len(scheduler.timesteps))
        return generator.decode(x)
