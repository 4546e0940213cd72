"""Building a model from its configuration: its networks and the stages that train them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from t2i.core.errors import T2IError, UserError, nearest
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Stage
from t2i.core.models.model import Model
from t2i.core.registry.specs import ModelSpec, import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.core.settings import ModelConfig
from t2i.core.settings.engine import STAGE_SETTINGS, WHOLE_RUN


def build(
    config: RunConfig,
    assets: Path | None = None,
    *,
    helpers: bool = True,
    fresh: bool | None = None,
) -> Model:
    """Build a model with fresh weights, drawn from torch's global generator.

    Args:
        config: The configuration of its run.
        assets: Folder of a saved model whose assets are used; the caller loads its weights
            afterwards. None to build the model without saved files.
        helpers: Whether to build the networks that only training needs, too.
        fresh: Whether these are new, so that they load weights that settings name. None: they are
            if there is no saved model.

    Returns:
        The model.

    Raises:
        T2IError: The generator does not extend its family's class.
    """
    spec = registry().models[config.model]
    text_encoder = registry().encoders.build(
        config.encoder, assets / "text_encoder" if assets else None
    )
    generator = import_object(spec.generator)(
        config.settings, text_encoder.shape, assets / "generator" if assets else None
    )
    check_family(generator, spec)
    new = assets is None if fresh is None else fresh
    made: Mapping[str, nn.Module] = {}
    if helpers and spec.helpers:
        made = import_object(spec.helpers)(config.settings, text_encoder.shape, new)
    if config.settings.channels_last:
        for module in (generator, *made.values()):
            module.to(memory_format=torch.channels_last)
    return Model(config, generator, text_encoder, made)


def check_family(generator: Generator, spec: ModelSpec) -> None:
    """Check that a generator extends the class of the family that its specification names.

    Args:
        generator: The generator.
        spec: The model's specification.

    Raises:
        T2IError: It does not.
    """
    family = registry().families[spec.family]
    kind = import_object(family.generator)
    if not isinstance(generator, kind):
        raise T2IError(
            f"model '{spec.name}' declares the family '{spec.family}', but its "
            f"{type(generator).__name__} "
            f"does not extend {kind.__name__} ({family.generator})"
        )


def stages_of(config: RunConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """Return the stages of a model's training, and check their settings.

    Args:
        config: The configuration of the run.
        text_encoder: The run's text encoder.

    Returns:
        The stages, in order; of a run with adapters (`lora`), the one that trains them. Empty if
        the model has nothing to train.

    Raises:
        T2IError: A stage names a setting that a stage cannot have.
        UserError: The value of one of its settings is wrong, or there is no stage `lora.stage`.
    """
    stages: Sequence[Stage] = import_object(registry().models[config.model].stages)(
        config.settings, text_encoder
    )
    for stage in stages:
        stage_settings(config, stage)
    lora = config.settings.lora
    return stages if not lora.rank else [_adapted(config.model, stages, lora.stage)]


def _adapted(model: str, stages: Sequence[Stage], name: str | None) -> Stage:
    """Return the stage that trains adapters: the one that is named, or the last one."""
    if not stages:
        raise UserError(f"model '{model}' has nothing to train, so adapters either: lora.rank=0")
    names = [stage.name for stage in stages]
    if name is not None and name not in names:
        raise UserError(
            f"lora.stage = {name}: model '{model}' has no such stage{nearest(name, names)}"
        )
    return stages[-1 if name is None else names.index(name)]


def stage_settings(config: RunConfig, stage: Stage) -> ModelConfig:
    """Return the settings of a run within one of its stages.

    Args:
        config: The configuration of the run.
        stage: The stage.

    Returns:
        The model's settings with those of the stage in place of the run's.

    Raises:
        T2IError: The stage names a setting that a stage cannot have.
        UserError: The value of a setting is wrong, or does not fit the others.
    """
    where = f"model '{config.model}', stage '{stage.name}'"
    for key in stage.settings:
        if key in WHOLE_RUN:
            raise T2IError(
                f"{where}: '{key}' is a setting of the whole run, which a stage cannot change"
            )
        if key not in STAGE_SETTINGS:
            raise T2IError(
                f"{where}: the engine has no setting '{key}'{nearest(key, STAGE_SETTINGS)}"
            )
    own: dict[str, Any] = {**config.settings.model_dump(), **stage.settings}
    return type(config.settings).of(own, where) if stage.settings else config.settings
