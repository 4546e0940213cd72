"""Training of NCSN: one stage of denoising score matching."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from t2i.core.families.prediction import predicted_eps
from t2i.core.families.schedule import like
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Networks, Stage
from t2i.plugins.common.diffusion.training import DiffusionTrainer, draw_times
from t2i.plugins.models.ncsn.config import NCSNConfig


class NCSNTrainer(DiffusionTrainer):
    """Minimise 1/2 E sigma^2 ||s(x_0 + sigma z, sigma) + z / sigma||^2 over uniform levels.

    sigma s + z has no unit, so the loss is the papers', although their images are in [0, 1].

    Source: Song & Ermon 2019, equations 5 and 6 with lambda = sigma^2.

    Args:
        config: Settings of the model.
        networks: The model's networks.
    """

    def __init__(self, config: NCSNConfig, networks: Networks) -> None:
        super().__init__(config, networks, "network")
        self.config = config

    def times(self, noise: Noise) -> Tensor:
        return draw_times(self.generator.schedule, None, noise)

    def clean(self, batch: Batch) -> Tensor:
        images = super().clean(batch)
        if not self.config.dequantise:
            return images
        return dequantised(images, batch.noise.uniform("dequantise", 0, images.shape[1:]))

    def loss(self, output: Tensor, z_0: Tensor, z_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        error = predicted_eps(self.generator.schedule, "score", z_t, t, output) - eps
        if self.config.min_snr_gamma is not None:
            # The error of x_0 is sigma times that of eps, and its weight min(1 + SNR, gamma).
            variance = like(t, eps).square()
            weight = torch.minimum(variance + 1, self.config.min_snr_gamma * variance)
            error = error * weight.sqrt()
        if self.config.reduction == "mean":
            return error.square().mean()
        return error.square().sum() / (2 * len(error))


def dequantised(images: Tensor, u: Tensor) -> Tensor:
    """Spread images of 256 values evenly over the range: 255/256 x + u/256 for images in [0, 1].

    Args:
        images: Images in [-1, 1], float (B, 3, H, W).
        u: Random numbers from U[0, 1) of the same shape.

    Returns:
        The images, in [-1, 1).
    """
    return (images + 1) * (255 / 256) + u / 128 - 1


def stages(config: NCSNConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the one stage, `scores`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. The stage trains it if it is trainable.

    Returns:
        The stage.
    """
    return [Stage("scores", 1.0, partial(NCSNTrainer, config))]
