"""Training of normalising flows: one stage, by maximum likelihood."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.optimizer import Optimizer

from t2i.core.families.flow import standard_normal_log_prob
from t2i.core.interfaces.text import TextFeatures
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Trainer
from t2i.plugins.common.diffusion.training import outline_loss
from t2i.plugins.common.flows.config import FlowConfig
from t2i.plugins.common.flows.generator import SpaceFlow
from t2i.plugins.common.text.along import train_along


class FlowTrainer(Trainer):
    """Minimises -log p(x | text) / D, in nats of a value, by Adam.

    A text encoder that can be trained is trained too. The log has the same in bits
    (`bits_per_dim`), with the constant of dequantisation.

    Args:
        config: Settings of the model.
        networks: The model's networks. The generator is a `SpaceFlow`.
    """

    def __init__(self, config: FlowConfig, networks: Networks) -> None:
        generator, text_encoder = networks.generator, networks.text_encoder
        assert isinstance(generator, SpaceFlow)
        self.config, self.generator, self.network = config, generator, generator.network
        self.encode = generator.encode
        self.modules: dict[str, nn.Module] = {"network": self.network}
        groups = self.groups()
        train_along(text_encoder, config.lr_text, self.modules, groups)
        self.optimizers = {"network": self.optimizer(groups)}

    def groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups of the network. By default there is one.

        Returns:
            The groups, as torch's optimizers take them.
        """
        return [{"params": list(self.network.parameters())}]

    def optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Make the optimizer. By default it is Adam.

        Args:
            groups: Parameter groups.

        Returns:
            The optimizer.
        """
        return Adam(groups, self.config.lr, betas=self.config.betas, fused=True)

    def data(self, batch: Batch) -> tuple[Tensor, float]:
        """Return the noisy data of a batch.

        Args:
            batch: A batch of B examples.

        Returns:
            Data, (B, ...), and what is added to -log p to measure it in levels.
        """
        with torch.no_grad():
            x = self.generator.encode(batch.images) if batch.encoded is None else batch.encoded
            if x.dtype in (torch.bfloat16, torch.float16):  # latents, encoded under autocast
                x = x.float()
            return self.generator.perturbed(x, batch.noise)

    def step(self, batch: Batch, engine: Engine) -> Losses:
        x, volume = self.data(batch)
        text = self.generator.condition(batch.dropped(self.config.caption_dropout)[0])
        with torch.no_grad():
            self.prepare(x, text, engine)
        noise, log_det = self.network(x, text)
        loss = -(standard_normal_log_prob(noise) + log_det).mean() / x[0].numel()
        losses: Losses = {"bits_per_dim": (loss.detach() + volume / x[0].numel()) / math.log(2)}
        if self.network.outline_weight:
            losses["outline"] = outline_loss(self.network, x, text)
            loss = loss + self.network.outline_weight * losses["outline"]
        engine.update("network", loss)
        return losses

    def validation(self, batch: Batch, engine: Engine) -> Losses:
        # It changes nothing but through `engine.update`: `prepare` has been called by a step.
        return {"bits_per_dim": self.step(batch, engine)["bits_per_dim"]}

    def prepare(self, x: Tensor, text: TextFeatures, engine: Engine) -> None:
        """Prepare the network for the first step. By default nothing is done.

        Args:
            x: Noisy data of this process, (B, ...).
            text: Conditioned captions.
            engine: Gathers the rows of all processes.
        """


def gathered(text: TextFeatures, engine: Engine) -> TextFeatures:
    """Gather conditioned captions of all processes, for what reads their extras only.

    Args:
        text: Conditioned captions of this process.
        engine: Gathers rows.

    Returns:
        The captions of the global batch.
    """
    return replace(
        text,
        sentence=engine.gathered(text.sentence),
        words=engine.gathered(text.words),
        mask=engine.gathered(text.mask.float()).bool(),
        captions=(),
        extras={name: engine.gathered(value) for name, value in text.extras.items()},
    )
