"""Training of TarFlow: one stage."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch.optim import AdamW
from torch.optim.optimizer import Optimizer

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Networks, Stage
from t2i.plugins.common.flows.training import FlowTrainer
from t2i.plugins.models.tarflow.config import TarFlowConfig


class TarFlowTrainer(FlowTrainer):
    """Maximum likelihood of noisy data by AdamW. Source: Zhai et al. 2024, eq. 8.

    Args:
        config: Settings of the model.
        networks: The model's networks.
    """

    def __init__(self, config: TarFlowConfig, networks: Networks) -> None:
        self.decay = config.weight_decay
        super().__init__(config, networks)

    def optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        config = self.config
        return AdamW(groups, config.lr, betas=config.betas, weight_decay=self.decay, fused=True)


def stages(config: TarFlowConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the one stage, `flow`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. The stage trains it if it is trainable.

    Returns:
        The stage.
    """
    return [Stage("flow", 1.0, partial(TarFlowTrainer, config))]
