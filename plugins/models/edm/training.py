"""Training of EDM: one stage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from t2i.core.families.schedule import like
from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Networks, Stage
from t2i.plugins.common.diffusion.training import DiffusionTrainer
from t2i.plugins.models.edm.config import EDMConfig
from t2i.plugins.models.edm.preconditioning import preconditioner


class EDMTrainer(DiffusionTrainer):
    """Trains the denoiser by E weight(sigma) ||D(y + n; sigma) - y||^2, a mean over the values.

    Source: Karras et al. 2022, eq. 8.

    Args:
        config: Settings of the model.
        networks: The model's networks.
    """

    def __init__(self, config: EDMConfig, networks: Networks) -> None:
        super().__init__(config, networks)
        self.preconditioner = preconditioner(config)

    def times(self, noise: Noise) -> Tensor:
        return self.preconditioner.levels(noise.uniform("t", 0, ()))

    def loss(self, output: Tensor, z_0: Tensor, z_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        weight = like(self.preconditioner.weight(t), z_0)
        return (weight * (output - z_0).square()).mean()


def stages(config: EDMConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the one stage, `diffusion`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. The stage trains it if it is trainable.

    Returns:
        The stage.
    """
    return [Stage("diffusion", 1.0, partial(EDMTrainer, config))]
