"""Training: first which words matter, then the memory."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Adam

from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Batch, Engine, Losses, Networks, Stage, Trainer
from t2i_retrieval.config import RetrievalConfig
from t2i_retrieval.memory import Memory

COARSE = 8  # pixels a side of the images that are predicted: what is where, not how it is drawn


def regressed(keys: Tensor, values: Tensor) -> Tensor:
    """Each row of `values` (B, V) as the others predict it: sum_j p_ij v_j, p_ij ~ exp(-|k_i - k_j|^2), p_ii = 0
    (Weinberger & Tesauro 2007, eq. 1 to 3)."""
    squares = (keys[:, None] - keys[None]).square().sum(-1)
    itself = torch.eye(len(keys), dtype=torch.bool, device=keys.device)
    return squares.neg().masked_fill(itself, -torch.inf).softmax(1) @ values


class MetricTrainer(Trainer):
    """The map A is trained so that images whose captions are near, A e being the key, predict each other."""

    def __init__(self, config: RetrievalConfig, networks: Networks) -> None:
        assert isinstance(networks.generator, Memory)
        self.metric = networks.generator.metric
        self.modules = {"metric": self.metric}
        self.optimizers = {"metric": Adam(self.metric.parameters(), config.lr)}

    def _predicted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Coarse images (B, 3 * 8 * 8): as they are, and as predicted."""
        coarse = F.adaptive_avg_pool2d(batch.images, COARSE).flatten(1)
        return coarse, regressed(self.metric(batch.text.sentence), coarse)

    def step(self, batch: Batch, engine: Engine) -> Losses:
        coarse, predicted = self._predicted(batch)
        error = (coarse - predicted).square().mean()
        engine.update("metric", error)
        return {"regression": error}

    def preview(self, batch: Batch) -> Tensor:
        """Images beside what the others predict."""
        _, predicted = self._predicted(batch)
        images = F.interpolate(predicted.view(-1, 3, COARSE, COARSE), size=batch.images.shape[-1])
        return torch.stack([batch.images, images], dim=1).flatten(0, 1)


class MemoryTrainer(Trainer):
    """Every image that comes by is remembered. Nothing is optimised: there is no optimizer.

    On several processes each one remembers its own images, and those of the first are saved.
    """

    def __init__(self, config: RetrievalConfig, networks: Networks) -> None:
        assert isinstance(networks.generator, Memory)
        self.memory = networks.generator
        self.modules = {}
        self.optimizers = {}

    def step(self, batch: Batch, engine: Engine) -> Losses:
        losses = {}
        if self.memory.count:
            losses["distance"] = self.memory(batch.text).min(1).values.mean()
        self.memory.remember(batch.images, batch.text.sentence)
        return {
            **losses,
            "remembered": torch.tensor(float(self.memory.count), device=self.memory.device),
        }


def stages(config: RetrievalConfig, text_encoder: TextEncoder) -> list[Stage]:
    return [
        Stage("metric", 1 - config.memory_share, partial(MetricTrainer, config)),
        Stage("memory", config.memory_share, partial(MemoryTrainer, config)),
    ]
