"""The family of guides, classifiers of noisy images that steer other, unguided diffusion models.

Source: classifier guidance, Dhariwal & Nichol 2021.
"""

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
    """A classifier of noisy images, which computes log p(y | x_t) for captions y.

    It samples no images itself. `t2i sample --guide RUN` steers another model by it.

    Attributes:
        noise_shape: Shape of x_t of one image, the same as that of the guided model.
        schedule: Schedule of the noise that the guide was trained with.
    """

    family = "guide"
    noise_shape: tuple[int, ...]
    schedule: Schedule

    @abstractmethod
    def log_likelihood(self, x_t: Tensor, t: Tensor, text: TextFeatures) -> Tensor:
        """Compute log p(y | x_t), up to a constant.

        Args:
            x_t: Noisy images or latents, (B, *noise_shape).
            t: Timestep of each image in the guide's schedule, (B,).
            text: Features of B captions y, as `condition` returned them.

        Returns:
            Log-likelihoods, (B,), differentiable in `x_t`.
        """


def guide_of(
    guide: GuideGenerator, text: TextFeatures, generator: DiffusionGenerator, scale: float
) -> Guide:
    """Make the gradient of scale * log p(y | x_t) with respect to a generator's x_t.

    The guide may have another schedule than the generator. It then receives the same image at the
    same ratio of noise to signal: x' = x_t alpha'(t') / alpha(t), where t' satisfies sigma'(t') /
    alpha'(t') = sigma(t) / alpha(t). At pure noise, where alpha(t) = 0, the gradient is 0: no image
    is there to classify.

    Args:
        guide: The classifier.
        text: Features of the captions y, from the guide's own text encoder and its `condition`.
        generator: The diffusion model to steer.
        scale: Scale of the gradient, s in the paper.

    Returns:
        The gradient as a function of the generator's (x_t, t, text). It ignores that text.

    Raises:
        UserError: The `noise_shape` of the guide differs from that of the generator.
    """
    if guide.noise_shape != generator.noise_shape:
        raise UserError(
            f"the guide classifies noisy images of shape {guide.noise_shape}, "
            f"the model draws {generator.noise_shape}: "
            "train the guide on this model's images or latents"
        )
    ours, theirs = generator.schedule, guide.schedule

    def gradient(x_t: Tensor, t: Tensor, _: TextFeatures) -> Tensor:
        alpha, sigma = ours.alpha(t), ours.sigma(t)
        t_guide = theirs.time_of(sigma / alpha)
        norms = [
            torch.hypot(path.alpha(u), path.sigma(u)) for path, u in ((ours, t), (theirs, t_guide))
        ]
        factor = like(norms[1] / norms[0], x_t)  # alpha' / alpha, finite at alpha = 0
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            score = scale * guide.log_likelihood(x * factor, t_guide, text).sum()
            slope = torch.autograd.grad(score, x)[0]
        return torch.where(like(alpha, x_t) > 0, slope, 0)

    return gradient
