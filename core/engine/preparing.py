"""Prepare a stage's networks for training: device, memory layout, compilation and mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim import Optimizer

from t2i.core.engine.checkpoint import HELPERS
from t2i.core.engine.eight_bit import in_bits
from t2i.core.errors import T2IError
from t2i.core.interfaces.recomputing import recompute
from t2i.core.interfaces.trainer import Optimization, Trainer, optimizations
from t2i.core.models.model import Model
from t2i.core.settings.engine import EngineConfig

if TYPE_CHECKING:
    from t2i.core.engine.sharding import Sharding


class PreparedStage:
    """A trainer and its model, ready for a step.

    Args:
        model: The model.
        trainer: The stage's trainer.
        settings: The stage's settings.
        device: The device on which to train.
        say: Takes a line for each network that is not compiled although `compile` is set, and one
            if no network has the gradient checkpointing that is set.

    Attributes:
        model: The model.
        trainer: The stage's trainer.
        device: The device on which it trains.
        optimizations: The trainer's optimizers by name.
        encoder_trains: Whether the stage trains the text encoder.
        sharding: The networks' weights, shared out over processes. None: each process has all.
    """

    def __init__(
        self,
        model: Model,
        trainer: Trainer,
        settings: EngineConfig,
        device: torch.device,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:

        self.model = model
        self.trainer = trainer
        self.device = device
        given = optimizations(trainer)
        self.optimizations: Mapping[str, Optimization] = {
            name: in_bits(optimization, settings.optimizer_bits)
            for name, optimization in given.items()
        }
        same = [name for name, one in self.optimizations.items() if one is given[name]]
        if settings.optimizer_bits != 32 and same:
            say(f"optimizer_bits: {', '.join(same)} keeps 32: only Adam and AdamW have fewer")
        trained = self._in_optimizers()
        self.encoder_trains = any(p in trained for p in model.text_encoder.parameters())
        again = settings.gradient_checkpointing
        able = [recompute(module, again) for module in trainer.modules.values()]
        if again and not any(able):
            say(f"gradient_checkpointing: {', '.join(trainer.modules)} cannot, and keep everything")
        self.sharding: Sharding | None = None
        for name, module in trainer.modules.items():
            module.to(device)
            if settings.channels_last:
                module.to(memory_format=torch.channels_last)
            if settings.compile and name not in trainer.eager:
                module.compile()
            elif settings.compile:
                say(f"'{name}' stays eager: the model does not support its compilation")
        self.train_mode()

    def shard(self, accelerator: Accelerator) -> None:
        """Share the weights out over processes, before the first step. All must call this together.

        Args:
            accelerator: The run's processes.
        """
        from t2i.core.engine.sharding import Sharding  # a second to import

        self._own = self.own_parameters()
        self.sharding = Sharding(accelerator, self.trainer.modules, [*self.optimizers.values()])

    def whole(self, keep: bool = False) -> AbstractContextManager[None]:
        """Put all weights into every process inside the block, if they are shared out.

        All processes must enter and leave the block together; one may compute alone inside it.

        Args:
            keep: Whether to keep changes of the weights that the block makes.

        Returns:
            The context manager.
        """
        return self.sharding.whole(keep) if self.sharding else nullcontext()

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """The trainer's torch optimizers by name."""
        return {name: optimization.optimizer for name, optimization in self.optimizations.items()}

    def _in_optimizers(self) -> set[nn.Parameter]:
        return {p for optimization in self.optimizations.values() for p in optimization.parameters}

    # --- parameters and networks ------------------------------------------------------------------

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the model that this stage trains.

        Returns:
            The parameters of generator, text encoder and helpers that an optimizer holds, by full
            name. Those of other networks of the stage are not among them. Of weights that are
            shared out, this process's rows.
        """
        chosen = self._in_optimizers()
        all_of_them = model_parameters(self.model)
        if self.sharding:
            all_of_them = {name: self.sharding.of(p) for name, p in all_of_them.items()}
        return {name: p for name, p in all_of_them.items() if p in chosen}

    def own_parameters(self) -> tuple[int, int]:
        """Count the parameters of the networks that end with the stage.

        Returns:
            The number of their parameters, and how many of them the stage trains.
        """
        if self.sharding:
            return self._own
        ours = set(model_parameters(self.model).values())
        others = {p for module in self.trainer.modules.values() for p in module.parameters()} - ours
        return sum(p.numel() for p in others), sum(p.numel() for p in self._in_optimizers() - ours)

    def saved_modules(self) -> dict[str, nn.Module]:
        """Return the networks that a checkpoint holds.

        Returns:
            The parts of the model, and the trainer's modules that are not inside one, by name.

        Raises:
            T2IError: Such a module of the trainer has the name of a part of the model.
        """
        saved = model_modules(self.model)
        inside = {id(module) for part in saved.values() for module in part.modules()}
        own = {
            name: module
            for name, module in self.trainer.modules.items()
            if id(module) not in inside
        }
        if taken := sorted({"generator", "text_encoder", HELPERS} & own.keys()):
            raise T2IError(
                f"{type(self.trainer).__name__}.modules: '{taken[0]}' is a part of the model: "
                "rename it"
            )
        return saved | own

    def optimizer_states(self) -> dict[str, dict[str, Any]]:
        """Return the state dicts of the optimizers, with whole tensors in the first process.

        All processes must call this together.

        Returns:
            The state dicts by the optimizers' names.
        """
        read = self.sharding.optimizer_state if self.sharding else Optimizer.state_dict
        return {name: read(optimizer) for name, optimizer in self.optimizers.items()}

    # --- modes ------------------------------------------------------------------------------------

    def train_mode(self) -> None:
        """Set the trainer's `modules` to training mode, and all other networks to evaluation mode.

        Frozen networks thus keep their running averages (batch normalisation). The text encoder is
        in training mode if and only if the stage trains it.
        """
        self.eval_mode()
        for module in self.trainer.modules.values():
            module.train()
        self.model.text_encoder.train(self.encoder_trains)

    def eval_mode(self) -> None:
        """Set all networks of model and trainer to evaluation mode."""
        for module in (*model_modules(self.model).values(), *self.trainer.modules.values()):
            module.eval()

    def uncompile(self) -> None:
        """Undo `compile`, since the next stage may need a network that is not compiled."""
        for module in self.trainer.modules.values():
            module._compiled_call_impl = None


def model_modules(model: Model) -> dict[str, nn.Module]:
    """Return the parts of a model, which outlive its stages.

    Args:
        model: The model.

    Returns:
        Generator, text encoder and, if there are any, helpers, by their names in checkpoints.
    """
    parts: dict[str, nn.Module] = {"generator": model.generator, "text_encoder": model.text_encoder}
    return parts | ({HELPERS: model.helpers} if len(model.helpers) else {})


def model_parameters(model: Model) -> dict[str, nn.Parameter]:
    """Return the parameters of a model under their full names.

    Args:
        model: The model.

    Returns:
        The parameters by full name: "generator.X", "text.X" or "helpers.X".
    """
    parts = {"generator": model.generator, "text": model.text_encoder, HELPERS: model.helpers}
    return {
        f"{part}.{name}": p
        for part, module in parts.items()
        for name, p in module.named_parameters()
    }
