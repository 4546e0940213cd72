"""Checks of a model's presets: they build, on the meta device, and name a sampler that fits."""

from __future__ import annotations

from typing import Any

import torch

from t2i.core.errors import T2IError, UserError
from t2i.core.families.diffusion import DiffusionGenerator
from t2i.core.families.flow import FlowGenerator
from t2i.core.families.one_shot import OneShotGenerator
from t2i.core.interfaces.generator import Generator
from t2i.core.interfaces.text import TextShape
from t2i.core.kit.conformance.outcome import Failed, Skipped, need
from t2i.core.kit.conformance.subject import ModelSubject
from t2i.core.models.building import check_family
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, default_sampler, resolve_config

STAND_IN = TextShape(512, 512)
"""Widths of the text features if the preset's encoder is not available here."""


def presets_build(subject: ModelSubject) -> None:
    """Every preset builds on the meta device, and `tiny` is one of them.

    The presets are those that the specification names. The generator has the image size of the
    settings, extends the class of its family, and leaves all parameters on the meta device.

    Args:
        subject: The model.

    Raises:
        Failed: The promise is broken.
        Skipped: A preset other than `tiny` needs something that is not available here.
    """
    names = tuple(import_object(subject.spec.config).presets())
    need(
        names == subject.spec.presets,
        f"its specification names the presets {subject.spec.presets}, it has {names}",
    )
    need("tiny" in names, "it has no preset 'tiny'")
    left_out = [reason for name in names if (reason := _builds(subject, name))]
    if left_out:
        raise Skipped(left_out[0])


def _builds(subject: ModelSubject, preset: str) -> str:
    """Build one preset. Return what is not available here, "" if nothing."""
    try:
        config = resolve_config(subject.name, preset=preset)
        generator = _on_meta(subject, config)
    except UserError as error:
        need(preset != "tiny", f"preset 'tiny' needs something from outside: {error}")
        return f"preset '{preset}': {error}"
    where = f"preset '{preset}': the generator"
    need(
        isinstance(generator, Generator),
        f"{where} is a {type(generator).__name__}, no t2i.core.Generator",
    )
    on = {str(p.device) for p in generator.parameters()}
    need(
        on <= {"meta"},
        f"{where} puts parameters on {sorted(on)} when it is built on the meta device",
    )
    size, wanted = generator.image_size, config.settings.image_size
    need(size == wanted, f"{where} says image_size {size}, the settings say {wanted}")
    try:
        check_family(generator, subject.spec)
    except T2IError as error:
        raise Failed(f"preset '{preset}': {error}") from None
    if isinstance(generator, OneShotGenerator | DiffusionGenerator | FlowGenerator):
        shape = generator.noise_shape
        need(
            isinstance(shape, tuple) and all(type(n) is int for n in shape),
            f"{where} says noise_shape {shape!r}",
        )
    return ""


def _on_meta(subject: ModelSubject, config: RunConfig) -> Any:
    """Build the generator, and the helpers if the model has some, on the meta device."""
    with torch.device("meta"):
        try:
            spec = registry().encoders[config.encoder.name]
            shape = import_object(spec.build)(config.encoder.config, None).shape
        except UserError:
            shape = STAND_IN
        if (
            subject.spec.helpers
        ):  # False: do not load files of weights, since meta tensors have no values
            import_object(subject.spec.helpers)(config.settings, shape, False)
        return import_object(subject.spec.generator)(config.settings, shape, None)


def samplers_fit(subject: ModelSubject) -> None:
    """The sampler of each preset is installed and supports the model's family.

    Args:
        subject: The model.

    Raises:
        Failed: The promise is broken.
        Skipped: The model samples no images.
    """
    subject.must_draw()
    presets = import_object(subject.spec.config).presets()
    for preset, named in presets.items():
        name, settings = named.sampler or (default_sampler(subject.spec.family), {})
        spec = registry().samplers[name]
        fits = subject.spec.family in spec.families or "*" in spec.families
        need(
            fits,
            f"preset '{preset}' names the sampler '{name}', which draws from "
            f"{', '.join(spec.families)}",
        )
        registry().samplers.build(registry().samplers.choose(name, settings, "sampler"))
