"""Settings of the `cascade` sampler. This module does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import field_validator

from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.registry.tables import registry

AUGMENTATION = "augmentation"
"""Setting of a part that enlarges: level of the noise that is added to the smaller images."""


class CascadeConfig(SamplerConfig):
    """Settings of the sampler of cascades.

    `steps` and `guidance` are set for each part. They are refused for the cascade as a whole.
    """

    samplers: Mapping[str, Mapping[str, Any]] = {}
    """Sampler of each part: its `name` and its settings, by the name of the part.

    A part that is not listed, or that has no `name` here, is sampled with its family's default
    sampler. A part without `guidance` here is not guided. A part that enlarges images has a further
    setting, `augmentation`: the level of the noise that is added to the smaller ones, 0 to 1.
    PART.KEY is short for samplers.PART.KEY, and PART.sampler for samplers.PART.name.
    """

    @classmethod
    def of(
        cls, settings: Mapping[str, Any], where: str, beneath: Mapping[str, Any] | None = None
    ) -> Self:
        """Check settings, as `Config.of` does. A part keeps its guidance if its sampler changes."""
        given, before = cls.current(settings), cls.current(beneath or {}).get("samplers", {})
        parts = {
            part: {"guidance": before[part]["guidance"], **own}
            if isinstance(own, Mapping) and "name" in own and "guidance" in before.get(part, {})
            else own
            for part, own in given.get("samplers", {}).items()
        }
        return super().of({**given, **({"samplers": parts} if parts else {})}, where, beneath)

    @classmethod
    def current(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Read PART.KEY as short for samplers.PART.KEY, and PART.sampler for samplers.PART.name.

        Args:
            settings: Settings by name.

        Returns:
            The settings in their full form.

        Raises:
            ValueError: A setting is given in both forms.
        """
        present = super().current(settings)
        short = {
            key: value
            for key, value in present.items()
            if key not in cls.model_fields and isinstance(value, Mapping)
        }
        if not short:
            return present
        full = {key: value for key, value in present.items() if key not in short}
        samplers = {part: dict(own) for part, own in full.get("samplers", {}).items()}
        for part, value in short.items():
            own = {"name" if key == "sampler" else key: v for key, v in value.items()}
            if twice := sorted(own.keys() & samplers.get(part, {}).keys()):
                raise ValueError(
                    f"{part}.{twice[0]} is short for samplers.{part}.{twice[0]}: give one of them"
                )
            samplers[part] = {**samplers.get(part, {}), **own}
        return {**full, "samplers": samplers}

    @field_validator("steps")
    @classmethod
    def _each_its_own(cls, steps: int | None) -> None:
        if steps is not None:
            raise ValueError("each part of a cascade has steps of its own: set PART.steps")

    @field_validator("guidance")
    @classmethod
    def _guided_apart(cls, guidance: float) -> float:
        if guidance != 1:
            raise ValueError("each part of a cascade has guidance of its own: set PART.guidance")
        return guidance

    @field_validator("samplers")
    @classmethod
    def _known(cls, samplers: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, Any]]:
        """Check names and settings of the samplers, as far as this works without the generator."""
        for part, given in samplers.items():
            if "name" in given:
                settings = {k: v for k, v in given.items() if k not in ("name", AUGMENTATION)}
                registry().samplers.choose(str(given["name"]), settings, f"{part}: sampler")
        return samplers
