"""Training of score-based models: denoising score matching in continuous time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from t2i.core.families.prediction import predicted_eps, predicted_x_0
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Networks, Stage
from t2i.plugins.common.diffusion.training import DiffusionTrainer
from t2i.plugins.models.scoresde.config import ScoreSDEConfig
from t2i.plugins.models.scoresde.sde import relative_diffusion, timestep


class ScoreTrainer(DiffusionTrainer):
    """Minimises E lambda ||s(x_t, t) - grad log p(x_t | x_0)||^2 over uniform times.

    With lambda = sigma^2 it is ||sigma s + eps||^2; with lambda = g^2 that is multiplied by
    g^2 / sigma^2. Source: Song et al. 2021, eq. 7.

    Args:
        config: Settings of the model.
        networks: The model's networks.
    """

    def __init__(self, config: ScoreSDEConfig, networks: Networks) -> None:
        super().__init__(config, networks, "network" if config.network == "ncsnpp" else "unet")
        self.config = config

    def times(self, noise: Noise) -> Tensor:
        least = self.config.t_min
        u = least + noise.uniform("t", 0, ()) * (1 - least)
        return timestep(self.generator.schedule, u)

    def loss(self, output: Tensor, z_0: Tensor, z_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        schedule, prediction = self.generator.schedule, self.generator.prediction
        bounds = self.config.weight_bounds
        likelihood = self.config.weighting == "likelihood"
        weight = relative_diffusion(schedule, t) if likelihood else t.new_ones(len(t))
        if bounds is None:
            error = predicted_eps(schedule, prediction, z_t, t, output) - eps
        else:  # eps - eps^ = (alpha / sigma) (x_0^ - x_0)
            error = predicted_x_0(schedule, prediction, z_t, t, output) - z_0
            weight = weight * (schedule.alpha(t) / schedule.sigma(t)).square()
            weight = weight.clamp(*bounds)
        errors = error.square().flatten(1)
        half_sum = self.config.reduction == "half-sum"
        joined = errors.sum(1) / 2 if half_sum else errors.mean(1)
        return (weight * joined).mean()


def stages(config: ScoreSDEConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the one stage, `score`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. The stage trains it if it is trainable.

    Returns:
        The stage.
    """
    return [Stage("score", 1.0, partial(ScoreTrainer, config))]
