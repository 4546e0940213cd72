"""Lazy regularisation: R1 and the path-length penalty, and Adam scaled for their extra steps.

Source: Mescheder et al. 2018 (R1); Karras et al. 2020 (StyleGAN2), appendix B.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Adam


def r1_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """Compute R1 without its weight: the mean over images of half the squared gradient's norm.

    It keeps its graph, so that it can be minimised (double backward).

    Args:
        scores: Scores of real images, computed from `images`.
        images: The images, requiring gradients, float (B, 3, H, H).

    Returns:
        The penalty, a scalar.
    """
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean() / 2


class PathLength(nn.Module):
    """The path-length penalty, which wants all directions of w to change images equally much.

    It is the mean of (a - |J' y|)^2, with y images of noise, J the derivative of the image with
    respect to the latent vectors, and a the running mean of the lengths.

    Args:
        decay: Share of a batch's mean length in the running mean.

    Attributes:
        mean: The running mean, a scalar.
    """

    mean: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("mean", torch.zeros(()))

    def lengths(self, images: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
        """Compute the length of each image's path.

        Args:
            images: Generated images, float (B, 3, H, H).
            ws: The latent vectors that they were generated from, requiring gradients, float (B,
                layers, w).
            noise: Noise from N(0, 1), of the images' shape.

        Returns:
            Lengths, float (B,), with a graph. The mean over layers is inside the root.
        """
        pixels = images.shape[2] * images.shape[3]
        scalar = (images * noise).sum() / pixels**0.5
        (gradient,) = torch.autograd.grad(scalar, ws, create_graph=True)
        return gradient.square().sum(2).mean(1).sqrt()

    def forward(self, lengths: Tensor, everyones: Tensor) -> Tensor:
        """Compute the penalty, and move the running mean.

        Args:
            lengths: Lengths of this process, float (B,).
            everyones: Lengths of all processes, float (processes * B,).

        Returns:
            The penalty without its weight, a scalar.
        """
        mean = torch.lerp(self.mean, everyones.mean().to(self.mean), self.decay)
        with torch.no_grad():
            self.mean.copy_(mean)
        return (lengths - mean).square().mean()


def lazy_adam(
    parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], every: int | None
) -> Adam:
    """Make Adam for a network that has one more update every so many steps.

    Its learning rate times k / (k + 1), and its betas to that power, make k + 1 updates equal k
    ordinary ones.

    Args:
        parameters: The parameters.
        lr: Learning rate of an ordinary update.
        betas: Decay rates of Adam's means.
        every: Steps k between two extra updates. None: there are none.

    Returns:
        The optimizer.
    """
    ratio = 1.0 if every is None else every / (every + 1)
    scaled = (betas[0] ** ratio, betas[1] ** ratio)
    return Adam(parameters, lr * ratio, scaled, fused=True)
