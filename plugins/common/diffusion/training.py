"""Training of diffusion models on pixels or latents: the losses and the trainer that they share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from scipy.special import betaincinv
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.prediction import predicted_eps, predicted_x_0, target
from t2i.core.families.schedule import THOUSAND, DiscreteSchedule, Schedule, add_noise
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.strata import stratified
from t2i.core.interfaces.text import TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Trainer
from t2i.plugins.common.diffusion.config import DenoisingSettings, DiffusionSettings
from t2i.plugins.common.diffusion.learned_range import variational_bits
from t2i.plugins.common.diffusion.text_map import MappedText
from t2i.plugins.common.text.along import train_along


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
    config: DenoisingSettings,
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


def outline_loss(network: MappedText, z_0: Tensor, text: TextFeatures) -> Tensor:
    """Compute the squared error of x_0 as predicted from the text map alone.

    It is E ||z_0 - outline(tau(y))||^2. A network may split its input into patches; the error is
    computed at the network's resolution.

    Args:
        network: A network with an outline.
        z_0: Clean images or latents, float (B, C, H, W).
        text: Their captions, conditioned.

    Returns:
        The loss, a scalar.
    """
    outline = network.outline(text)
    return (outline - F.pixel_unshuffle(z_0, z_0.shape[-1] // outline.shape[-1])).square().mean()


class DiffusionTrainer(Trainer):
    """Base of the trainers of diffusion models.

    Captions are dropped at random. Networks that `encode` needs are frozen. A text encoder that can
    be trained is trained together with the generator's network. A subclass says at which timesteps
    the network is trained (`times`), and computes its loss (`loss`).

    Args:
        config: Settings of the model.
        networks: The model's networks. The generator is a `DiffusionGenerator`.
        part: Name of the generator's module that is trained. Also the name of its optimizer.
        text: Whether a text encoder that can be trained is. Of the parts of a cascade, which share
            one, only the first trains it.
    """

    def __init__(
        self,
        config: DiffusionSettings,
        networks: Networks,
        part: str = "unet",
        text: bool = True,
    ) -> None:
        generator, text_encoder = networks.generator, networks.text_encoder
        assert isinstance(generator, DiffusionGenerator)
        self.generator, self.caption_dropout = generator, config.caption_dropout
        self.encode = generator.encode
        self.part, self.network = part, generator.get_submodule(part)
        self.modules: dict[str, nn.Module] = {part: self.network}
        groups: list[dict[str, Any]] = [{"params": list(self.network.parameters())}]
        if text:
            train_along(text_encoder, config.lr_text, self.modules, groups)
        self.optimizers = {part: Adam(groups, config.lr, betas=config.betas, fused=True)}

    @abstractmethod
    def times(self, noise: Noise) -> Tensor:
        """Draw the timesteps to train at.

        Args:
            noise: Source of random numbers, one row for each image.

        Returns:
            Timesteps (B,), as the generator's schedule counts them.
        """

    @abstractmethod
    def loss(self, output: Tensor, z_0: Tensor, z_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """Compute the loss of an output of the generator.

        Args:
            output: The generator's output at z_t, float (B, ...).
            z_0: Clean images or latents, float (B, ...).
            z_t: Noisy images or latents, float (B, ...).
            t: Timesteps, (B,).
            eps: The noise in z_t, float (B, ...).

        Returns:
            The loss, a scalar.
        """

    def clean(self, batch: Batch) -> Tensor:
        """Return x_0 of a batch. By default it is the images, encoded.

        Args:
            batch: Training examples.

        Returns:
            Clean images or latents, float (B, ...).
        """
        return self.generator.encode(batch.images) if batch.encoded is None else batch.encoded

    def step(self, batch: Batch, engine: Engine) -> Losses:
        with torch.no_grad():
            z_0 = self.clean(batch)
        eps = batch.noise.normal("eps", 0, z_0.shape[1:])
        return self.learn(z_0, eps, self.times(batch.noise), self.captions(batch), engine)

    def validation(self, batch: Batch, engine: Engine) -> Losses:
        return self.step(stratified(batch), engine)  # it changes nothing but by `engine.update`

    def captions(self, batch: Batch) -> TextFeatures:
        """Return the features of a batch's captions, some of them dropped at random.

        Args:
            batch: A batch of B examples.

        Returns:
            Features of B captions, not conditioned.
        """
        return batch.dropped(self.caption_dropout)[0]

    def learn(
        self, z_0: Tensor, eps: Tensor, t: Tensor, text: TextFeatures, engine: Engine
    ) -> Losses:
        """Update the network by the loss between clean images and noise.

        Args:
            z_0: Clean images or latents, float (B, ...).
            eps: Noise, float (B, ...).
            t: Timesteps, (B,).
            text: Features of B captions, not conditioned.
            engine: The engine.

        Returns:
            Losses for the log.
        """
        text = self.generator.condition(text)
        z_t = add_noise(self.generator.schedule, z_0, t, eps)
        losses = self.errors(z_0, z_t, t, eps, text)
        loss = sum(losses.values(), z_0.new_zeros(()))
        if isinstance(self.network, MappedText) and self.network.outline_weight:
            losses["outline"] = outline_loss(self.network, z_0, text)
            loss = loss + self.network.outline_weight * losses["outline"]
        engine.update(self.part, loss)
        return losses

    def errors(
        self, z_0: Tensor, z_t: Tensor, t: Tensor, eps: Tensor, text: TextFeatures
    ) -> Losses:
        """Call the generator, and compute the losses of its output.

        Args:
            z_0: Clean images or latents, float (B, ...).
            z_t: Noisy images or latents, float (B, ...).
            t: Timesteps, (B,).
            eps: The noise in z_t, float (B, ...).
            text: Features of B captions, conditioned.

        Returns:
            The losses, whose sum is minimised.
        """
        return {"diffusion": self.loss(self.generator(z_t, t, text), z_0, z_t, t, eps)}


class DenoisingTrainer(DiffusionTrainer):
    """Trains a diffusion model to predict noise, x_0 or what else the settings name.

    The loss is E ||target - net(z_t, t, tau(y))||; with `learned_range`, plus the variational bound
    in bits.

    Args:
        config: Settings of the model.
        networks: The model's networks.
        text: As of `DiffusionTrainer`.
        part: As of `DiffusionTrainer`.
    """

    def __init__(
        self,
        config: DenoisingSettings,
        networks: Networks,
        text: bool = True,
        part: str = "unet",
    ) -> None:
        super().__init__(config, networks, part, text)
        self.config = config

    def times(self, noise: Noise) -> Tensor:
        return draw_times(self.generator.schedule, self.config.noise_level_beta, noise)

    def loss(self, output: Tensor, z_0: Tensor, z_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return denoising_loss(self.config, self.generator.schedule, output, z_0, z_t, t, eps)

    def errors(
        self, z_0: Tensor, z_t: Tensor, t: Tensor, eps: Tensor, text: TextFeatures
    ) -> Losses:
        if not self.config.learned_range:
            return super().errors(z_0, z_t, t, eps, text)
        generator = self.generator
        output, v = generator.ranged(z_t, t, text)
        x_0 = predicted_x_0(generator.schedule, generator.prediction, z_t, t, output.detach())
        assert isinstance(generator.schedule, DiscreteSchedule)
        # The factor makes the bound's share the same for every T (Nichol & Dhariwal 2021, eq. 16).
        share = len(generator.schedule) / THOUSAND
        bits = variational_bits(generator.schedule, z_0, z_t, t, x_0, v).mean()
        return {"diffusion": self.loss(output, z_0, z_t, t, eps), "bits": share * bits}
