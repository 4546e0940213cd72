"""Training: the first stage trains the map to keys, the second fills the memory."""

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

COARSE = 8  # side in pixels of the predicted images, which show the layout but no details


def regressed(keys: Tensor, values: Tensor) -> Tensor:
    """Predict each row of some values from the other rows: sum_j p_ij v_j.

    The weights are p_ij ~ exp(-|k_i - k_j|^2) with p_ii = 0; they sum to 1 over j.

    Source: Weinberger & Tesauro 2007, eq. 1 to 3.

    Args:
        keys: Keys k, float (B, K).
        values: Values v, float (B, V).

    Returns:
        The predictions, float (B, V).
    """
    squares = (keys[:, None] - keys[None]).square().sum(-1)
    itself = torch.eye(len(keys), dtype=torch.bool, device=keys.device)
    return squares.neg().masked_fill(itself, -torch.inf).softmax(1) @ values


class MetricTrainer(Trainer):
    """The stage that trains the map A, so that images with near keys A e predict each other.

    Args:
        config: The settings of the model.
        networks: The networks; the generator is a `Memory`.
    """

    def __init__(self, config: RetrievalConfig, networks: Networks) -> None:
        assert isinstance(networks.generator, Memory)
        self.metric = networks.generator.metric
        self.modules = {"metric": self.metric}
        self.optimizers = {"metric": Adam(self.metric.parameters(), config.lr)}

    def _predicted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return coarse images (B, 3 * 8 * 8), and what the others in the batch predict."""
        coarse = F.adaptive_avg_pool2d(batch.images, COARSE).flatten(1)
        return coarse, regressed(self.metric(batch.text.sentence), coarse)

    def step(self, batch: Batch, engine: Engine) -> Losses:
        coarse, predicted = self._predicted(batch)
        error = (coarse - predicted).square().mean()
        engine.update("metric", error)
        return {"regression": error}

    def preview(self, batch: Batch) -> Tensor:
        """Show images beside their predictions.

        Args:
            batch: The batch.

        Returns:
            Images and predictions in turns, float (2 B, 3, H, H) in [-1, 1].
        """
        _, predicted = self._predicted(batch)
        images = F.interpolate(predicted.view(-1, 3, COARSE, COARSE), size=batch.images.shape[-1])
        return torch.stack([batch.images, images], dim=1).flatten(0, 1)


class MemoryTrainer(Trainer):
    """The stage that stores every image in the memory. It has no optimizer.

    If there are several processes, each stores its own images, and those of the first are saved.

    Args:
        config: The settings of the model.
        networks: The networks; the generator is a `Memory`.
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
    """List the training stages.

    Args:
        config: The settings of the model.
        text_encoder: The text encoder, which is not trained.

    Returns:
        The stages "metric" and "memory".
    """
    return [
        Stage("metric", 1 - config.memory_share, partial(MetricTrainer, config)),
        Stage("memory", config.memory_share, partial(MemoryTrainer, config)),
    ]
