"""Building a model from its configuration: networks with fresh weights, and the stages that train
them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from t2i.core.errors import T2IError, nearest
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Stage
from t2i.core.models.model import Model
from t2i.core.registry.specs import ModelSpec, import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig
from t2i.core.settings import STAGE_SETTINGS, WHOLE_RUN, ModelConfig


def build(config: RunConfig, assets: Path | None = None, *, helpers: bool = True) -> Model:
    """A model with fresh weights, drawn from torch's global generator.

    Args:
        assets: folder of a saved model, whose assets are used; its weights are then still to be
            loaded.
        helpers: whether the networks that only training needs are built too.
    """
    spec = registry().models[config.model]
    text_encoder = registry().encoders.build(
        config.encoder, assets / "text_encoder" if assets else None
    )
    generator = import_object(spec.generator)(
        config.settings, text_encoder.shape, assets / "generator" if assets else None
    )
    check_family(generator, spec)
    made: Mapping[str, nn.Module] = {}
    if helpers and spec.helpers:
        made = import_object(spec.helpers)(config.settings, text_encoder.shape, assets is None)
    if config.settings.channels_last:
        for module in (generator, *made.values()):
            module.to(memory_format=torch.channels_last)
    return Model(config, generator, text_encoder, made)


def check_family(generator: Generator, spec: ModelSpec) -> None:
    """Raises T2IError unless the generator extends the class of the family that its specification
    names."""
    family = registry().families[spec.family]
    kind = import_object(family.generator)
    if not isinstance(generator, kind):
        raise T2IError(
            f"model '{spec.name}' says that it is of the family '{spec.family}', but its "
            f"{type(generator).__name__} "
            f"does not extend {kind.__name__} ({family.generator})"
        )


def stages_of(config: RunConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """The stages of a model's training, in order; none where there is nothing to train. Their
    settings are checked."""
    stages: Sequence[Stage] = import_object(registry().models[config.model].stages)(
        config.settings, text_encoder
    )
    for stage in stages:
        stage_settings(config, stage)
    return stages


def stage_settings(config: RunConfig, stage: Stage) -> ModelConfig:
    """The settings of a run in one of its stages.

    Raises:
        T2IError: the stage names what is no setting of a stage: model, stage and key are named.
        UserError: the value of one is wrong, or does not fit the others.
    """
    where = f"model '{config.model}', stage '{stage.name}'"
    for key in stage.settings:
        if key in WHOLE_RUN:
            raise T2IError(
                f"{where}: '{key}' is a setting of the whole run, which no stage may have of its "
                f"own"
            )
        if key not in STAGE_SETTINGS:
            raise T2IError(
                f"{where}: the engine has no setting '{key}'{nearest(key, STAGE_SETTINGS)}"
            )
    own: dict[str, Any] = {**config.settings.model_dump(), **stage.settings}
    return type(config.settings).of(own, where) if stage.settings else config.settings
