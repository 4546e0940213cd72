"""Checks of a sampler, on an untrained model of a family that it supports."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import torch

from t2i.core.errors import UserError
from t2i.core.interfaces.noise import PromptNoise
from t2i.core.interfaces.sampler import Sampler, SamplerConfig
from t2i.core.io.images import to_tensor
from t2i.core.kit.conformance.drawing import agrees, drawn, same_bytes
from t2i.core.kit.conformance.outcome import Skipped, need
from t2i.core.kit.conformance.subject import CHAIN, Part
from t2i.core.models.building import build
from t2i.core.models.model import Model
from t2i.core.registry.choice import Choice
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import resolve_config

CAPTIONS = ["a red circle", "two small blue squares above a green star", ""]


class SamplerPart(Part):
    """A sampler with a model to sample from."""

    @cached_property
    def model(self) -> Model:
        """The first registered model that the sampler supports: preset `tiny`, fresh weights."""
        families = self.spec.families
        reason = f"no model of a family that it draws from is installed ({', '.join(families)})"
        for spec in registry().models:
            if spec.family in families or "*" in families:
                torch.manual_seed(0)
                fresh = build(resolve_config(spec.name))
                choice = self._short(fresh.config.sampler)
                try:
                    registry().samplers.build(choice).check(fresh.generator)
                except UserError as error:
                    reason = str(error)
                    continue
                return Model(
                    replace(fresh.config, sampler=choice), fresh.generator, fresh.text_encoder
                )
        raise Skipped(reason)

    def _short(self, own: Choice[SamplerConfig]) -> Choice[SamplerConfig]:
        """Return the sampler with few steps.

        Its other settings are the model's own if this is the model's sampler, else the defaults.
        """
        settings = own.config.model_dump() if own.name == self.name else {}
        steps = self.choice(**settings).config.steps
        try:
            return self.choice(**{**settings, "steps": min(steps or CHAIN, CHAIN)})
        except UserError:  # it has no setting for the number of steps
            return self.choice(**settings)


def images(subject: SamplerPart) -> None:
    """It names registered families only, and its images have the model's size.

    Args:
        subject: The sampler.

    Raises:
        Failed: The promise is broken.
        Skipped: No model that it supports is installed.
    """
    for family in subject.spec.families:
        need(family == "*" or family in registry().families, f"no family is named '{family}'")
    model = subject.model
    images = drawn(model, CAPTIONS)
    size = model.generator.image_size
    need(
        images.shape[1:] == (size, size, 3),
        f"images are {images.shape[1:]}, the model's size is {size}",
    )


def same_seed(subject: SamplerPart) -> None:
    """The same request returns the same bytes, whatever the state of global random generators.

    Args:
        subject: The sampler.

    Raises:
        Failed: The promise is broken.
        Skipped: No model that it supports is installed.
    """
    need(
        same_bytes(subject.model, CAPTIONS),
        "two draws of one seed differ: draw random numbers from `noise` alone",
    )


def batch_size(subject: SamplerPart) -> None:
    """Sampled in smaller batches, images agree as closely as the model's tolerance requires.

    Args:
        subject: The sampler.

    Raises:
        Failed: The promise is broken.
        Skipped: No model that it supports is installed.
    """
    agrees(subject.model, CAPTIONS)


def inverts(subject: SamplerPart) -> None:
    """If it declares that it inverts, it turns images into finite noise of the model's shape.

    Args:
        subject: The sampler.

    Raises:
        Failed: The promise is broken.
        Skipped: It does not invert, or no model that it supports is installed.
    """
    model = subject.model
    sampler: Sampler = registry().samplers.build(model.config.sampler)
    if not sampler.inverts(model.generator):
        raise Skipped("it does not say that it inverts")
    with torch.no_grad():
        flat = np.full((2, model.generator.image_size, model.generator.image_size, 3), 90, np.uint8)
        images = to_tensor(flat, model.device)
        drawn_from = PromptNoise(0, ((0, 0), (1, 0)), model.device)
        request = model.request(CAPTIONS[:2], drawn_from, null=sampler.needs_null)
        noise = sampler.invert(model.generator, images, request)
    shape = getattr(model.generator, "noise_shape", noise.shape[1:])
    need(noise.shape == (2, *shape), f"it gives noise of shape {tuple(noise.shape)}")
    need(bool(noise.isfinite().all()), "it gives noise that is not finite")
