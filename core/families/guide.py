"""Guides: networks that judge noisy images, to steer diffusion models that were trained without them (classifier
guidance, Dhariwal & Nichol 2021)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from t2i.core.errors import UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.schedule import Schedule, like
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.request import Guide
from t2i.core.interfaces.text import TextFeatures


class GuideGenerator(Generator):
    """`guide.log_likelihood(x_t, t, text)`: log p(y | x_t). It draws no images; `t2i sample --guide RUN` uses it.

    Attributes:
        noise_shape: shape of x_t of one image, as the guided model's.
        schedule: of the noise that it was trained on.
    """

    family = "guide"
    noise_shape: tuple[int, ...]
    schedule: Schedule

    @abstractmethod
    def log_likelihood(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """log p(y | x_t) (B,), up to a constant, at x_t (B, *noise_shape) and times t (B,) of `schedule`."""


def guide_of(
    guide: GuideGenerator, text: TextFeatures, generator: DiffusionGenerator, scale: float
) -> Guide:
    """The gradient of scale * log p(y | x_t) in the generator's own x_t and t, whatever schedule the guide has.

    A guide under another schedule sees the same image at the same ratio of noise to signal:
    x' = x_t alpha'(t') / alpha(t), with sigma'(t') / alpha'(t') = sigma(t) / alpha(t).

    Args:
        text: what the images are to show, as the guide's own text encoder and `condition` made it.
        scale: s of the paper.

    Raises:
        UserError: the guide's noise_shape is not the generator's.
    """
    if guide.noise_shape != generator.noise_shape:
        raise UserError(
            f"the guide judges noisy images of shape {guide.noise_shape}, the model draws {generator.noise_shape}: "
            "train the guide on this model's images or latents"
        )
    ours, theirs = generator.schedule, guide.schedule

    def gradient(x_t: Tensor, t: Tensor, _: TextFeatures) -> Tensor:
        alpha, sigma = ours.alpha(t), ours.sigma(t)
        t_guide = theirs.time_of(sigma / alpha)
        factor = like(theirs.alpha(t_guide) / alpha, x_t)
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            score = scale * guide.log_likelihood(x * factor, t_guide, text).sum()
            return torch.autograd.grad(score, x)[0]

    return gradient
