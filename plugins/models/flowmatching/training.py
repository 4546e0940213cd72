"""Training of flow matching: the autoencoder, the flow, and reflow.

Source: Lipman et al. 2023; Liu et al. 2023; Esser et al. 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor
from torch.optim import Adam

from t2i.core.interfaces.noise import Noise
from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i.plugins.common.diffusion.training import DiffusionTrainer
from t2i.plugins.common.latent.autoencoder import AutoencoderTrainer
from t2i.plugins.models.flowmatching.config import FlowMatchingConfig
from t2i.plugins.models.flowmatching.networks import FlowMatchingGenerator
from t2i.plugins.models.flowmatching.times import timesteps


class FlowTrainer(DiffusionTrainer):
    """Minimises E ||v_theta(x_t, t, y) - (eps - x_0)||^2.

    Source: Lipman et al. 2023, section 4.1, example II with sigma_min = 0; Liu et al. 2023, eq. 1.

    Args:
        config: Settings of the model.
        networks: The model's networks.
    """

    def __init__(self, config: FlowMatchingConfig, networks: Networks) -> None:
        super().__init__(config, networks, "network")
        self.config = config

    def times(self, noise: Noise) -> Tensor:
        return timesteps(self.config, noise.uniform("t", 0, ()))

    def loss(self, output: Tensor, z_0: Tensor, z_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        return (output - (eps - z_0)).square().mean()


class ReflowTrainer(FlowTrainer):
    """Straightens a trained flow: it is trained again, on pairs that the flow itself connects.

    A pair is noise and the image to which the guided flow carries it. The pairs are made on the fly
    by the networks that the stage begins with; they are kept as `teacher`. A flow whose paths do
    not cross has nothing to average, so its velocities are constant along each path, and few steps
    of a sampler are exact. Guidance is part of the images, so that the new flow needs none.

    The text encoder is not trained, because the teacher needs it as it is.

    Source: Liu et al. 2023, section 2.2.

    Args:
        config: Settings of the model.
        networks: The model's networks, whose generator is a trained flow.
    """

    def __init__(self, config: FlowMatchingConfig, networks: Networks) -> None:
        super().__init__(config, networks)
        assert isinstance(self.generator, FlowMatchingGenerator)
        self.flow = self.generator
        self.teacher = deepcopy(self.flow.network).requires_grad_(False)
        self.modules = {self.part: self.network, "teacher": self.teacher}
        parameters = self.network.parameters()
        self.optimizers = {
            self.part: Adam(parameters, config.reflow.lr, betas=config.betas, fused=True)
        }
        self.encode = None

    def step(self, batch: Batch, engine: Engine) -> Losses:
        settings, noise = self.config.reflow, batch.noise
        text = self.captions(batch)
        eps = noise.normal("eps", 0, self.flow.noise_shape)
        z_0 = self.carried(eps, text, batch.null())
        rows = [*range(len(eps))] * settings.uses
        times = [noise.uniform("t", use, ()) for use in range(settings.uses)]
        return self.learn(z_0[rows], eps[rows], torch.cat(times), text[rows], engine)

    @torch.no_grad()
    def carried(self, eps: Tensor, text: TextFeatures, null: TextFeatures) -> Tensor:
        """Carry noise to images along the teacher's guided flow.

        Args:
            eps: Noise, (B, *noise_shape).
            text: Features of B captions, not conditioned.
            null: Features of B times no caption, not conditioned.

        Returns:
            Images or latents, (B, *noise_shape).
        """
        settings = self.config.reflow
        self.teacher.eval()
        both = self.teacher.condition(TextFeatures.cat([null, text]))
        guided = settings.guidance != 1

        def velocity(x_t: Tensor, t: Tensor) -> Tensor:
            if not guided:
                return self.flow.velocity(self.teacher, x_t, t, both[len(x_t) :])
            x_t, t = torch.cat([x_t, x_t]), torch.cat([t, t])
            without, given = self.flow.velocity(self.teacher, x_t, t, both).chunk(2)
            return torch.lerp(without, given, settings.guidance)

        return carried(velocity, eps, settings.steps)


def carried(velocity: Callable[[Tensor, Tensor], Tensor], eps: Tensor, steps: int) -> Tensor:
    """Follow dx = v dt from t = 1 to t = 0 by Euler's method.

    Args:
        velocity: Function of x_t (B, ...) and t (B,) that returns velocities (B, ...).
        eps: Where to start, (B, ...).
        steps: Number of steps, all of one length.

    Returns:
        Where the flow ends, (B, ...).
    """
    x = eps
    for step in range(steps, 0, -1):
        x = x - velocity(x, x.new_full((len(x),), step / steps)) / steps
    return x


def stages(config: FlowMatchingConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the stages: `autoencoder`, `flow` and `reflow`.

    The first is left out if pixels flow, or if the autoencoder has weights. The last is left out if
    its share is 0.

    Args:
        config: The model's settings.
        text_encoder: Not used here. Stage `flow` trains it if it is trainable.

    Returns:
        The stages in order.
    """

    def autoencoding(networks: Networks) -> Trainer:
        assert isinstance(networks.generator, FlowMatchingGenerator)
        assert networks.generator.autoencoder is not None
        return AutoencoderTrainer(config.autoencoder, networks.generator.autoencoder)

    rest, reflow = 1.0, config.reflow.share
    made: list[Stage] = []
    if config.space == "latents" and not config.autoencoder.weights:
        share = config.autoencoder.share
        own = {"batch_size": config.autoencoder.batch_size or config.batch_size}
        made.append(Stage("autoencoder", share, autoencoding, own))
        rest -= share
    made.append(Stage("flow", rest * (1 - reflow), partial(FlowTrainer, config)))
    if reflow:
        made.append(Stage("reflow", rest * reflow, partial(ReflowTrainer, config)))
    return made
