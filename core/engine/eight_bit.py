"""Optimizers of bitsandbytes, whose states have 8 bits a number."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

from torch.optim import Adam, AdamW

from t2i.core.errors import UserError
from t2i.core.interfaces.trainer import Optimization
from t2i.core.registry.specs import import_object
from t2i.core.settings.engine import EngineConfig

PACKAGE = "bitsandbytes"
KINDS = {Adam: "Adam8bit", AdamW: "AdamW8bit"}
"""Classes of bitsandbytes, by the class of torch whose place they take."""
KEPT = ("params", "lr", "betas", "eps", "weight_decay")
"""What they take over of a group of parameters."""


def check_bits(settings: EngineConfig) -> None:
    """Check before training that the optimizers can have as few bits as the settings say.

    Args:
        settings: The settings of a stage.

    Raises:
        UserError: bitsandbytes is missing.
    """
    if settings.optimizer_bits == 32:
        return
    if find_spec(PACKAGE) is None:
        raise UserError(
            f"optimizer_bits = {settings.optimizer_bits} needs {PACKAGE}: 'pip install {PACKAGE}', "
            "or set optimizer_bits=32"
        )


def in_bits(optimization: Optimization, bits: int) -> Optimization:
    """Give an optimizer states of as many bits as wished.

    Args:
        optimization: A trainer's optimizer, before its first step.
        bits: 8 or 32.

    Returns:
        The same with an optimizer of bitsandbytes. The one that was given if bits are 32, or it is
        of another class than Adam and AdamW.
    """
    given = optimization.optimizer
    name = KINDS.get(type(given))
    if bits == 32 or name is None:
        return optimization
    kind = import_object(f"{PACKAGE}.optim:{name}")
    groups = [{key: group[key] for key in KEPT} for group in given.param_groups]
    return replace(optimization, optimizer=kind(groups))
