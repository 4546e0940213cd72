"""What cannot be trained with weights that are shared out over processes (`parallel = fsdp`)."""

from __future__ import annotations

from torch import optim

from t2i.core.errors import UserError
from t2i.core.interfaces.trainer import Trainer, optimizations

ELEMENTWISE = (
    optim.SGD, optim.ASGD, optim.Adam, optim.AdamW, optim.Adamax, optim.NAdam, optim.RAdam,
    optim.RMSprop, optim.Rprop, optim.Adagrad, optim.Adadelta,
)  # fmt: skip
"""Optimizers that treat each number by itself, so that they may work on rows of a parameter."""


def check_shardable(trainer: Trainer, stage: str) -> None:
    """Check that a stage can be trained with `parallel = fsdp`.

    Args:
        trainer: The trainer of the stage.
        stage: Its name, for the message.

    Raises:
        UserError: A double backward pass goes through one of its networks, or an optimizer needs
            whole parameters.
    """
    if trainer.eager:
        raise UserError(
            f"parallel=fsdp: stage {stage} differentiates through the backward pass of "
            f"'{trainer.eager[0]}', whose weights are gone by then: set parallel=data"
        )
    for name, chosen in optimizations(trainer).items():
        if not isinstance(chosen.optimizer, ELEMENTWISE):
            raise UserError(
                f"parallel=fsdp: the optimizer '{name}' of stage {stage} is "
                f"{type(chosen.optimizer).__name__}, which needs whole parameters: "
                "set parallel=data"
            )
