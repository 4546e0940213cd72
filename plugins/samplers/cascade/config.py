"""Settings of the sampler `cascade`.

This module does not import torch, so that settings can be listed quickly.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import field_validator

from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.registry.tables import registry


class CascadeConfig(SamplerConfig):
    """Settings of the sampler `cascade`.

    `steps` and `guidance` are set for each part; setting them for the whole cascade is an error.
    """

    samplers: Mapping[str, Mapping[str, Any]] = {}
    """Sampler of each part: part -> {"name": sampler, and that sampler's settings}. A part without
    an entry, or whose entry has no name, uses the default sampler of its family."""

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
        """Check the samplers' names and settings, as far as possible without the generator."""
        for part, given in samplers.items():
            if "name" in given:
                settings = {key: value for key, value in given.items() if key != "name"}
                registry().samplers.choose(
                    str(given["name"]), settings, f"samplers.{part}: sampler"
                )
        return samplers
