"""Settings of the `cascade` sampler. This module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import field_validator

from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.registry.tables import registry


class CascadeConfig(SamplerConfig):
    """Settings of the sampler of cascades.

    `steps` and `guidance` are set for each part. They are refused for the cascade as a whole.
    """

    samplers: Mapping[str, Mapping[str, Any]] = {}
    """Sampler of each part: its `name` and its settings, by the name of the part.

    A part that is not listed, or that has no `name` here, is sampled with its family's default
    sampler. A part without `guidance` here is not guided.
    """

    @field_validator("steps")
    @classmethod
    def _each_its_own(cls, steps: int | None) -> None:
        if steps is not None:
            raise ValueError("each part of a cascade has steps of its own: set samplers.PART.steps")

    @field_validator("guidance")
    @classmethod
    def _guided_apart(cls, guidance: float) -> float:
        if guidance != 1:
            raise ValueError(
                "each part of a cascade has guidance of its own: set samplers.PART.guidance"
            )
        return guidance

    @field_validator("samplers")
    @classmethod
    def _known(cls, samplers: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """Check names and settings of the samplers, as far as this works without the generator."""
        for part, given in samplers.items():
            if "name" in given:
                settings = {key: value for key, value in given.items() if key != "name"}
                registry().samplers.choose(
                    str(given["name"]), settings, f"samplers.{part}: sampler"
                )
        return samplers
