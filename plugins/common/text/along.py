"""A text encoder that is trained along with a model's network."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from torch import nn

from t2i.core.interfaces.text import TextEncoder


def train_along(
    text_encoder: TextEncoder,
    lr: float,
    modules: MutableMapping[str, nn.Module],
    groups: list[dict[str, Any]],
    **settings: Any,
) -> None:
    """Add a text encoder to what a trainer trains, if it can be trained.

    Args:
        text_encoder: The text encoder.
        lr: Its learning rate.
        modules: The trainer's modules; they get "text_encoder".
        groups: Parameter groups of the trainer's optimizer; they get one more.
        settings: Further settings of that group, such as weight_decay.
    """
    if text_encoder.trainable:
        modules["text_encoder"] = text_encoder
        trained = [p for p in text_encoder.parameters() if p.requires_grad]
        groups.append({"params": trained, "lr": lr, **settings})
