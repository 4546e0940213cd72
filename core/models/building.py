"""Building a model from its configuration: networks with fresh weights, and the stages that train them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from t2i.core.errors import T2IError
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextEncoder
from t2i.core.interfaces.trainer import Stage
from t2i.core.models.model import Model
from t2i.core.registry.specs import ModelSpec, resolve
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig


def build(config: RunConfig, assets: Path | None = None) -> Model:
    """A model with fresh weights (drawn from torch's global generator), or, given the folder of a saved model, one
    whose assets come from there (its weights are then still to be loaded)."""
    spec = registry().models[config.model]
    text_encoder = registry().encoders.build(config.encoder, assets / "text_encoder" if assets else None)
    generator = resolve(spec.generator)(config.settings, text_encoder.shape, assets / "generator" if assets else None)
    check_family(generator, spec)
    if config.settings.channels_last:
        generator.to(memory_format=torch.channels_last)
    return Model(config, generator, text_encoder)


def check_family(generator: Generator, spec: ModelSpec) -> None:
    """Raises T2IError unless the generator extends the class of the family that its specification names."""
    family = registry().families[spec.family]
    kind = resolve(family.generator)
    if not isinstance(generator, kind):
        raise T2IError(
            f"model '{spec.name}' says that it is of the family '{spec.family}', but its {type(generator).__name__} "
            f"does not extend {kind.__name__} ({family.generator})"
        )


def stages_of(config: RunConfig, text_encoder: TextEncoder) -> Sequence[Stage]:
    """The stages of a model's training, in order; none where there is nothing to train."""
    stages: Sequence[Stage] = resolve(registry().models[config.model].stages)(config.settings, text_encoder)
    return stages
