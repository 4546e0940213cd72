"""Settings that make training fit a small card, as one word (`t2i train --low-memory`)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import torch

from t2i.core.engine.eight_bit import PACKAGE
from t2i.core.io import launched
from t2i.core.runs.configure import RunConfig, is_there, open_dataset
from t2i.core.settings.model import Augment


def save_memory(
    config: RunConfig,
    given: Collection[str],
    device: torch.device,
    say: Callable[[str], None],
    *,
    split: bool,
) -> RunConfig:
    """Choose the settings with which training takes the least memory, and report them.

    Blocks are computed again, and latents and text are computed once, before training, if no image
    is augmented. On a GPU numbers are bf16 where it has them, and optimizers keep 8 bits where
    bitsandbytes is installed.

    Args:
        config: The configuration.
        given: Names of the settings that the user has set. They stay.
        device: The device on which to train.
        say: Takes a line.
        split: Whether images may pass one at a time. Models that compare the images of a batch need
            more.

    Returns:
        The configuration with these settings.

    Raises:
        UserError: The data set cannot be opened.
    """
    settings = config.settings
    wished: dict[str, Any] = {"gradient_checkpointing": True}
    if split and not launched.several():
        wished["accumulate"] = settings.batch_size
    endless = not is_there(config.data) or open_dataset(config.data).endless
    if settings.augment == Augment() and not endless:
        wished["cache_views"] = max(1, settings.cache_views)
    if device.type == "cuda":
        wished |= {"precision": "bf16"} if torch.cuda.is_bf16_supported() else {}
        wished |= {"optimizer_bits": 8} if find_spec(PACKAGE) else {}
    chosen = {name: value for name, value in wished.items() if name not in given}
    say(f"low memory: {' '.join(f'{name}={value}' for name, value in chosen.items())}")
    if device.type == "cuda" and "optimizer_bits" not in wished:
        say(f"'pip install {PACKAGE}' would allow optimizer_bits=8, which saves more")
    return replace(config, settings=settings.with_(**chosen))
