"""What a visitor wishes to see: models, prompts, settings, and a grid over two of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from t2i.core.errors import UserError, nearest
from t2i.core.registry.tables import registry
from t2i.web.site import Limits

MODELS = 6
"""The most models of one drawing."""

PROMPTS = 64
"""The most prompts of one drawing."""

LONGEST = 4000
"""The most letters of a prompt."""

AXES = ("model", "prompt", "sampler", "steps", "guidance", "seed", "negative prompt")
"""What a grid may vary, beside any setting of the samplers by its own name."""

OF_THE_FORM = ("model", "prompt")
"""Axes whose values are those of the form."""


@dataclass(frozen=True)
class Settings:
    """What the images of one cell are sampled with, beside the prompt.

    Args:
        model: Name of the model, as the page shows it.
        sampler: Registry name of the sampler. None: the model's own.
        steps: Number of sampling steps. None: the sampler's own.
        guidance: Scale of guidance. None: the model's own.
        seed: Seed of the noise.
        negative: Negative prompt. "": none.
        more: Further settings of the sampler, each NAME=VALUE.
    """

    model: str
    sampler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    negative: str = ""
    more: tuple[str, ...] = ()

    def with_value(self, axis: str, value: str) -> Settings:
        """Change one setting.

        Args:
            axis: One of AXES but "prompt", or the name of a sampler's setting.
            value: The value as text.

        Returns:
            The changed settings.

        Raises:
            UserError: The value is none of that setting.
        """
        if axis == "model":
            return replace(self, model=value)
        if axis == "sampler":
            return replace(self, sampler=value)
        if axis == "negative prompt":
            return replace(self, negative=value)
        if axis == "steps":
            return replace(self, steps=whole(value, axis))
        if axis == "seed":
            return replace(self, seed=whole(value, axis))
        if axis == "guidance":
            return replace(self, guidance=number(value, axis))
        return replace(self, more=(*self.more, f"{axis}={value}"))

    @property
    def sets(self) -> dict[str, Any]:
        """The further settings of the sampler, by name. Reading them imports torch."""
        from t2i.core.runs.configure import parse_sets

        return parse_sets(self.more)


@dataclass(frozen=True)
class Axis:
    """One side of the grid.

    Args:
        name: One of AXES, or the name of a sampler's setting.
        values: The values as text, at least one.
    """

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """What is sampled with the same settings, for all prompts at once.

    Args:
        settings: The settings.
        values: The value of each side of the grid that is a setting, as text, by the axis' name.
    """

    settings: Settings
    values: Mapping[str, str]


@dataclass(frozen=True)
class Wish:
    """One drawing.

    Args:
        models: Names of the models.
        prompts: The prompts.
        settings: Everything else, for the cells where the grid does not say otherwise.
        images: Images of each prompt in each cell.
        x: What varies from column to column.
        y: What varies from row to row.
    """

    models: tuple[str, ...]
    prompts: tuple[str, ...]
    settings: Settings
    images: int = 1
    x: Axis = field(default_factory=lambda: Axis("model", ()))
    y: Axis = field(default_factory=lambda: Axis("prompt", ()))

    def check(self, limits: Limits) -> None:
        """Check the wish, as far as that is possible without a model.

        Args:
            limits: How many images one drawing may have.

        Raises:
            UserError: Something is missing, too much, or unknown.
        """
        if not self.prompts:
            raise UserError("write a prompt; each line is one")
        if len(self.prompts) > PROMPTS or any(len(text) > LONGEST for text in self.prompts):
            raise UserError(f"give at most {PROMPTS} prompts of at most {LONGEST} letters")
        for axis in (self.x, self.y):
            if axis.name not in OF_THE_FORM and not axis.values:
                raise UserError(f"the grid varies the {axis.name}: give its values, such as 1, 2")
        if self.x.name == self.y.name:
            raise UserError(f"both sides of the grid vary the {self.x.name}: choose another one")
        if not 1 <= self.images <= limits.images:
            raise UserError(f"{self.images} images of each prompt: give 1 to {limits.images}")
        if self.count > limits.images:
            raise UserError(
                f"these are {self.count} images, more than one drawing has ({limits.images}): "
                "choose fewer models, prompts, values or images"
            )
        for settings in (part.settings for part in self.parts()):
            if wrong := [text for text in settings.more if not text.partition("=")[2]]:
                raise UserError(f"sampler setting '{wrong[0]}': write NAME=VALUE, such as eta=0.5")
            if settings.sampler is not None and settings.sampler not in registry().samplers:
                raise UserError(
                    f"no sampler is named '{settings.sampler}'"
                    f"{nearest(settings.sampler, (spec.name for spec in registry().samplers))}"
                )

    @property
    def count(self) -> int:
        """Number of all images."""
        sides = 1
        for axis in (self.x, self.y):
            sides *= len(axis.values) if axis.name not in OF_THE_FORM else 1
        return len(self.models) * len(self.prompts) * self.images * sides

    def values(self, axis: Axis) -> Sequence[str]:
        """List the values of a side of the grid.

        Args:
            axis: `x` or `y`.

        Returns:
            The values as text.
        """
        if axis.name == "model":
            return self.models
        return self.prompts if axis.name == "prompt" else axis.values

    def parts(self) -> Iterator[Part]:
        """List the parts of the drawing.

        Yields:
            The parts, model by model.

        Raises:
            UserError: A value of the grid is none of its setting.
        """
        varied = [axis for axis in (self.y, self.x) if axis.name not in OF_THE_FORM]
        names = [axis.name for axis in varied]
        for model in self.models:
            for values in product(*(axis.values for axis in varied)):
                settings = replace(self.settings, model=model)
                for name, value in zip(names, values, strict=True):
                    settings = settings.with_value(name, value)
                yield Part(settings, dict(zip(names, values, strict=True)))


def whole(value: object, name: str) -> int:
    """Read a whole number from 0 on.

    Args:
        value: A text or a number.
        name: What it is, for the error.

    Returns:
        The number.

    Raises:
        UserError: It is none.
    """
    try:
        found = int(str(value).strip()) if not isinstance(value, float) else int(value)
    except (ValueError, OverflowError):
        found = -1
    if not 0 <= found < 2**63 or (isinstance(value, float) and value != found):
        raise UserError(f"{name} '{str(value)[:40]}': give a whole number from 0 on")
    return found


def number(value: object, name: str) -> float:
    """Read a finite number.

    Args:
        value: A text or a number.
        name: What it is, for the error.

    Returns:
        The number.

    Raises:
        UserError: It is none.
    """
    try:
        found = float(str(value))
    except ValueError:
        found = float("nan")
    if not abs(found) < float("inf"):
        raise UserError(f"{name} '{str(value)[:40]}': give a number")
    return found


def listed(text: str) -> tuple[str, ...]:
    """Split the values of a side of the grid.

    Args:
        text: Values with commas between; with a semicolon anywhere, these stand between instead.

    Returns:
        The values, each once.
    """
    mark = ";" if ";" in text else ","
    return tuple(dict.fromkeys(value.strip() for value in text.split(mark) if value.strip()))
