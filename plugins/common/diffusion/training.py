"""Training of diffusion models on pixels or latents: the losses and the trainer that they share."""

from __future__ import annotations

from typing import Any

import torch
from scipy.special import betaincinv
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.prediction import predicted_eps, predicted_x_0, target
from t2i.core.families.schedule import Schedule, add_noise
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Trainer
from t2i.plugins.common.diffusion.config import DenoisingConfig
from t2i.plugins.common.diffusion.unet import TextUNet


def draw_times(schedule: Schedule, levels: tuple[float, float] | None, noise: Noise) -> Tensor:
    """Draw the times to train at.

    The noise level (t / T of discrete schedules) is uniform or has a Beta distribution. The latter
    is drawn by inversion of its distribution function, so that each image keeps its own random
    number.

    Args:
        schedule: Turns noise levels into times.
        levels: Parameters (a, b) of the Beta distribution. None: uniform.
        noise: Source of random numbers, one row for each image.

    Returns:
        The times (B,), as the schedule counts them.
    """
    level = noise.uniform("t", 0, ())
    if levels is not None:
        a, b = levels
        level = torch.from_numpy(betaincinv(a, b, level.double().cpu().numpy())).to(level)
    return schedule.time_at(level)


def denoising_loss(
    config: DenoisingConfig,
    schedule: Schedule,
    output: Tensor,
    z_0: Tensor,
    z_t: Tensor,
    t: Tensor,
    eps: Tensor,
) -> Tensor:
    """Compute the mean squared or absolute error of a network's output at z_t.

    The error is that of the prediction, or of the x_0 that it implies. The errors of v and of x_0
    differ by the factor sigma(t), since x_0 = alpha z_t - sigma v; `min_snr_gamma` leads from one
    to the other. The error of a score is weighted by sigma(t)^2 (Song et al. 2021).

    Source: thesis 2.25 and 2.31.

    Args:
        config: Which prediction, which error and which loss.
        schedule: The noise schedule.
        output: The network's output, float (B, ...).
        z_0: Clean images or latents, float (B, ...).
        z_t: Noisy images or latents, float (B, ...).
        t: Times, (B,).
        eps: The noise in z_t, float (B, ...).

    Returns:
        The loss, a scalar.
    """
    if config.prediction == "score" and config.error == "prediction":
        error = predicted_eps(schedule, "score", z_t, t, output) - eps
    elif config.error == "prediction":
        error = output - target(schedule, config.prediction, z_0, t, eps)
    else:
        weight = schedule.sigma(t).square().reciprocal().clamp_max(config.min_snr_gamma)
        error = predicted_x_0(schedule, config.prediction, z_t, t, output) - z_0
        error = error * weight.sqrt().view(-1, *[1] * (error.dim() - 1))
    return error.square().mean() if config.loss == "l2" else error.abs().mean()


def outline_loss(unet: TextUNet, z_0: Tensor, text: TextFeatures) -> Tensor:
    """Compute the squared error of x_0 as predicted from the text map alone.

    It is E ||z_0 - outline(tau(y))||^2. A network may split its input into patches; the error is
    computed at the network's resolution.

    Args:
        unet: A network with an outline.
        z_0: Clean images or latents, float (B, C, H, W).
        text: Their captions, conditioned.

    Returns:
        The loss, a scalar.
    """
    outline = unet.outline(text)
    return (outline - F.pixel_unshuffle(z_0, z_0.shape[-1] // outline.shape[-1])).square().mean()


class DenoisingTrainer(Trainer):
    """Trains a diffusion model to predict noise, x_0 or what else the settings name.

    The loss is E ||target - net(z_t, t, tau(y))||, with captions dropped at random. Networks that
    `encode` needs are frozen. A text encoder that can be trained is trained together with the
    generator's `unet`.

    Args:
        config: Settings of the model.
        networks: The model's networks; the generator must have a `TextUNet` named `unet`.
    """

    def __init__(self, config: DenoisingConfig, networks: Networks) -> None:
        generator, text_encoder = networks.generator, networks.text_encoder
        assert isinstance(generator, DiffusionGenerator)
        self.config, self.generator = config, generator
        self.encode = generator.encode
        unet = generator.get_submodule("unet")
        assert isinstance(unet, TextUNet)
        self.unet = unet
        self.modules: dict[str, nn.Module] = {"unet": unet}
        groups: list[dict[str, Any]] = [{"params": list(unet.parameters())}]
        if text_encoder.trainable:
            self.modules["text_encoder"] = text_encoder
            groups.append(
                {
                    "params": [p for p in text_encoder.parameters() if p.requires_grad],
                    "lr": config.lr_text,
                }
            )
        self.optimizers = {"unet": Adam(groups, config.lr, betas=config.betas, fused=True)}

    def step(self, batch: Batch, engine: Engine) -> Losses:
        config, schedule, noise = self.config, self.generator.schedule, batch.noise
        with torch.no_grad():
            z_0 = self.generator.encode(batch.images) if batch.encoded is None else batch.encoded
        t = draw_times(schedule, config.noise_level_beta, noise)
        eps = noise.normal("eps", 0, z_0.shape[1:])
        keep = noise.uniform("caption_dropout", 0, ()) >= config.caption_dropout
        text = batch.text if bool(keep.all()) else batch.text.where(keep, batch.null())
        text = self.generator.condition(text)
        z_t = add_noise(schedule, z_0, t, eps)
        loss = denoising_loss(config, schedule, self.generator(z_t, t, text), z_0, z_t, t, eps)
        losses: Losses = {"diffusion": loss}
        if self.unet.outline_weight:
            losses["outline"] = outline_loss(self.unet, z_0, text)
            loss = loss + self.unet.outline_weight * losses["outline"]
        engine.update("unet", loss)
        return losses
