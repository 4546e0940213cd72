"""Train adapters of low rank (LoRA) in place of the weights: the base is frozen, and is not saved.

Source: Hu et al. 2021. The adapters are those of the library peft.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from t2i.core.engine.checkpoint import HELPERS
from t2i.core.engine.context import RunContext
from t2i.core.errors import UserError
from t2i.core.interfaces.trainer import Stage, Trainer, optimizations
from t2i.core.models.lora.base import Base
from t2i.core.models.metadata import model_hash
from t2i.core.models.model import Model
from t2i.core.models.origin import Origin
from t2i.core.models.overlap import Overlap
from t2i.core.models.weights import is_of_base, mark_as_base
from t2i.core.settings import ModelConfig
from t2i.core.settings.model import Lora

NAME = "default"
"""Name of the adapters in peft's layers."""
GROUPS = ("attention", "linear", "all")
"""Targets that are no ends of names."""


def hold_base(context: RunContext, origin: Origin | None, overlap: Overlap | None) -> Base | None:
    """Make the model's weights the base of a new run that trains adapters.

    Args:
        context: The run, whose weights are in.
        origin: Where they are from. None: they are what the settings build.
        overlap: Which of them fit.

    Returns:
        The base. None: the run trains the weights themselves.

    Raises:
        UserError: Only some of the model's weights are from the origin.
    """
    if not context.settings.lora.rank:
        return None
    if origin is None or overlap is None:
        context.reporter.say(
            "warning: no --from: the adapters change what the settings build, which is random "
            "where they name no pretrained weights"
        )
        base = Base(None, model_hash(context.model))
    else:
        new = [name for name in overlap.new if not name.startswith(f"{HELPERS}.")]
        if new or origin.place is None:
            raise UserError(
                f"--from {origin.name}: adapters change a whole model, and {len(new)} tensors are "
                f"not from there{f', such as {new[0]}' if new else ''}: name a run or a folder "
                "with a model of the same settings"
            )
        base = Base(origin.recorded, model_hash(context.model), origin.settings)
    _hold(context.model, base)
    return base


def hold_again(context: RunContext, base: Base) -> None:
    """Make the model's weights the base of a resumed run.

    Args:
        context: The run, whose weights are in.
        base: The base that it had before.

    Raises:
        UserError: The weights are others now.
    """
    base.check(model_hash(context.model), str(context.run.path))
    _hold(context.model, base)


def _hold(model: Model, base: Base) -> None:
    for _, part in model.parts():
        mark_as_base(part)
    model.base = base


def trainer_of(
    model: Model, stage: Stage, settings: ModelConfig, say: Callable[[str], None]
) -> Trainer:
    """Make the trainer of a stage. With `lora.rank`, it trains adapters in place of weights.

    Args:
        model: The model. Its networks get the adapters.
        stage: The stage.
        settings: The stage's settings.
        say: Takes the line that tells what gets adapters.

    Returns:
        The trainer.

    Raises:
        UserError: peft is not installed, or no layer of a trained network is a target.
    """
    lora = settings.lora
    if not lora.rank:
        return stage.trainer(model.networks)
    if lora.text_encoder:
        model.text_encoder.requires_grad_(True)
    trainer = stage.trainer(model.networks)
    adapters = _inject(model, trainer, lora)
    for _, part in model.parts():
        for parameter in part.parameters():
            if is_of_base(parameter):
                parameter.requires_grad_(False)
    _exchange(trainer, adapters, stage.name)
    trained = [p for own in adapters.values() for p in own]
    say(
        f"adapters of rank {lora.rank} in {len(adapters)} layers: "
        f"{sum(p.numel() for p in trained):,} parameters are trained"
    )
    return trainer


def _inject(model: Model, trainer: Trainer, lora: Lora) -> dict[Tensor, list[nn.Parameter]]:
    """Give the target layers of the networks that a trainer trains their adapters.

    Returns:
        The adapters' parameters, by the weights that they change.
    """
    peft: Any = _peft()
    chosen = {id(p) for o in optimizations(trainer).values() for g in o.optimizer.param_groups
              for p in g["params"]}  # fmt: skip
    adapters: dict[Tensor, list[nn.Parameter]] = {}
    for network, root in _networks(model, trainer, lora):
        names = {
            name: layer
            for name, layer in _targets(root, lora.targets)
            if id(layer.weight) in chosen and layer.weight not in adapters
        }
        if network == "text_encoder" and not names:
            raise UserError("lora.text_encoder: the stage does not train it, or it has no targets")
        if not names:
            continue
        alpha = lora.rank if lora.alpha is None else lora.alpha
        config = peft.LoraConfig(
            r=lora.rank, lora_alpha=alpha, lora_dropout=lora.dropout,
            target_modules=[f"network.{name}" for name in names],
        )  # fmt: skip
        # In a holder, because peft reads a network's attribute `config`, which is ours here.
        holder = nn.ModuleDict({"network": root})
        peft.inject_adapter_in_model(config, holder, adapter_name=NAME)
        for name, layer in names.items():
            new: Any = root.get_submodule(name)
            assert isinstance(layer.weight, Tensor)
            adapters[layer.weight] = [new.lora_A[NAME].weight, new.lora_B[NAME].weight]
    if not adapters:
        raise UserError(
            f"lora.targets = {','.join(lora.targets)}: no layer that this stage trains is such a "
            f"one; set lora.targets to {', '.join(GROUPS[1:])}, or to the ends of layers' names"
        )
    return adapters


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise UserError(
            "adapters need the library peft: install it with pip install 't2i-zoo[lora]'"
        ) from None
    return peft


def _networks(model: Model, trainer: Trainer, lora: Lora) -> Iterator[tuple[str, nn.Module]]:
    """Yield the networks of the model that a trainer trains, with the part that each is in."""
    wanted = ["generator", *(["text_encoder"] if lora.text_encoder else [])]
    parts = dict(model.parts())
    for part in wanted:
        inside = {id(module) for module in parts[part].modules()}
        roots = [module for module in trainer.modules.values() if id(module) in inside]
        if part == "text_encoder" and not roots:
            raise UserError("lora.text_encoder: this stage does not train the text encoder")
        for root in roots:
            yield part, root


def _targets(root: nn.Module, targets: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """Yield the layers of a network that get adapters, by name.

    Layers whose weights are computed (spectral normalisation), and those that
    `nn.MultiheadAttention` reads past, cannot have them.
    """
    modules = dict(root.named_modules())
    for name, layer in modules.items():
        if not name or not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            continue
        parents = [modules[end] for end in _parents(name)]
        if parametrize.is_parametrized(layer) or isinstance(parents[-1], nn.MultiheadAttention):
            continue
        attends = any("attention" in type(parent).__name__.lower() for parent in parents)
        linear = isinstance(layer, nn.Linear)
        fits = {"attention": linear and attends, "linear": linear, "all": True}
        if any(fits.get(t, name == t or name.endswith(f".{t}")) for t in targets):
            yield name, layer


def _parents(name: str) -> list[str]:
    """Return the names of the modules that a module is in, the outermost first."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(len(parts))]


def _exchange(
    trainer: Trainer, adapters: Mapping[Tensor, list[nn.Parameter]], stage: str
) -> None:  # fmt: skip
    """Put adapters into the optimizers in place of the weights that they change."""
    for name, optimization in optimizations(trainer).items():
        for group in optimization.optimizer.param_groups:
            kept: list[nn.Parameter] = []
            for parameter in group["params"]:
                own = [] if is_of_base(parameter) else [parameter]
                kept += adapters.get(parameter, own)
            group["params"] = kept
        if not optimization.parameters:
            raise UserError(
                f"stage {stage}: its optimizer '{name}' would have nothing to train: set "
                "lora.targets to layers that it trains"
            )


@torch.no_grad()
def tell_unchanged(model: Model, say: Callable[[str], None]) -> None:
    """Report adapters that training has not changed, because no gradient reached them.

    Args:
        model: The model.
        say: Takes the line, if there are any.
    """
    if model.base is None:
        return
    second = {
        f"{part}.{name}": parameter
        for part, module in model.parts()
        for name, parameter in module.named_parameters()
        if ".lora_B." in name
    }
    still = [name for name, parameter in second.items() if not bool(parameter.any())]
    if still:
        say(
            f"warning: {len(still)} of {len(second)} adapters did not change, such as {still[0]}: "
            "the stage does not use their layers, or reads their weights past them"
        )
