"""Training of Glow: one stage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.optim import Adamax
from torch.optim.optimizer import Optimizer

from t2i.core.interfaces.text import TextEncoder, TextFeatures
from t2i.core.interfaces.trainer import Engine, Networks, Stage
from t2i.plugins.common.flows.training import FlowTrainer, gathered
from t2i.plugins.models.glow.config import GlowConfig
from t2i.plugins.models.glow.networks import Glow


class GlowTrainer(FlowTrainer):
    """Maximum likelihood; the first batch of all processes sets the actnorms.

    Args:
        config: Settings of the model.
        networks: The model's networks.
    """

    def __init__(self, config: GlowConfig, networks: Networks) -> None:
        self.kind = config.optimizer
        super().__init__(config, networks)
        assert isinstance(self.network, Glow)
        self.glow, self.begun = self.network, False

    def optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        if self.kind == "adamax":
            return Adamax(groups, self.config.lr, betas=self.config.betas)
        return super().optimizer(groups)

    def prepare(self, x: Tensor, text: TextFeatures, engine: Engine) -> None:
        if self.begun:  # the buffer is read once: reading it waits for the device
            return
        if not bool(self.glow.prepared):
            self.glow.prepare(engine.gathered(x), gathered(text, engine))
        self.begun = True


def stages(config: GlowConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the one stage, `flow`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. The stage trains it if it is trainable.

    Returns:
        The stage.
    """
    return [Stage("flow", 1.0, partial(GlowTrainer, config))]
