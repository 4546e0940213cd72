"""Training of RealNVP: one stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Networks, Stage
from t2i.plugins.common.flows.training import FlowTrainer
from t2i.plugins.common.gan.blocks.batchnorm import recalibrate
from t2i.plugins.models.realnvp.config import RealNVPConfig


class RealNVPTrainer(FlowTrainer):
    """Maximum likelihood, with an L2 term for the lengths of weight-normalised filters.

    Args:
        config: Settings of the model.
        networks: The model's networks.
    """

    def __init__(self, config: RealNVPConfig, networks: Networks) -> None:
        self.decay, self.recalibrate = config.weight_decay, config.recalibrate
        super().__init__(config, networks)

    def groups(self) -> list[dict[str, Any]]:
        named = list(self.network.named_parameters())
        lengths = [p for name, p in named if _is_length(name)]
        others = [p for name, p in named if not _is_length(name)]
        groups: list[dict[str, Any]] = [{"params": others}]
        if lengths:
            groups.append({"params": lengths, "weight_decay": self.decay})
        return groups

    @torch.no_grad()
    def finish(self, batches: Callable[[], Batch]) -> None:
        recalibrate(self.network, self._passed, batches, self.recalibrate)

    def _passed(self, batch: Batch) -> Tensor:
        """Return the noise of a batch's data."""
        x, _volume = self.data(batch)
        noise: Tensor = self.network(x, self.generator.condition(batch.text))[0]
        return noise


def _is_length(name: str) -> bool:
    """Tell whether a parameter is the length of filters, or the gain of a coupling."""
    return name.endswith(("weight.original0", ".gain"))


def stages(config: RealNVPConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the one stage, `flow`.

    Args:
        config: The model's settings.
        text_encoder: Not used here. The stage trains it if it is trainable.

    Returns:
        The stage.
    """
    return [Stage("flow", 1.0, partial(RealNVPTrainer, config))]
