"""The settings that every model has, and its presets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import pydantic
from pydantic import Field

from t2i.core.settings.base import Config
from t2i.core.settings.engine import EngineConfig


class Augment(Config):
    """Random changes of training images."""

    scale: float = Field(1.0, ge=1.0, le=4.0)
    """Size at which images are loaded before a random crop, as a multiple of `image_size`.

    From 1 (no crop) to 4.
    """

    flip: bool = False
    """Mirror half of the images, chosen at random.

    Leave it off if captions mention left and right.
    """


class Lora(Config):
    """Adapters of low rank that are trained in place of the weights (LoRA, Hu et al. 2021)."""

    rank: int = Field(0, ge=0)
    """Rank r of the adapters: a layer computes W x + alpha / r B A x, and only A and B are trained.

    4 to 64 is usual. 0: no adapters, the weights themselves are trained.
    """

    alpha: float | None = Field(None, gt=0)
    """The constant alpha of the factor alpha / r. None: r."""

    dropout: float = Field(0.0, ge=0, lt=1)
    """Share of an adapter's inputs that are set to zero in training.

    From 0 to below 1.
    """

    targets: tuple[str, ...] = ("attention",)
    """Layers that get adapters: attention, linear, all, or ends of their names.

    "attention" stands for the linear layers of attention, "linear" for all linear layers, and "all"
    for these and the convolutions. Anything else is the end of a name, such as [to_q,to_v].
    """

    text_encoder: bool = False
    """Whether the text encoder gets adapters, too."""

    stage: str | None = Field(None, min_length=1)
    """Name of the stage that is trained. Others are left out. None: the last one."""


@dataclass(frozen=True)
class Preset:
    """A named configuration of a model, with a data set, a text encoder and a sampler.

    Args:
        settings: Settings of the model. Others have their defaults.
        data: (registry name, settings) of the data set. None: the default data set.
        encoder: (registry name, settings) of the text encoder. None: the default encoder.
        sampler: (registry name, settings) of the sampler. None: the default sampler of the model's
            family.
    """

    settings: Mapping[str, Any]
    data: tuple[str, Mapping[str, Any]] | None = None
    encoder: tuple[str, Mapping[str, Any]] | None = None
    sampler: tuple[str, Mapping[str, Any]] | None = None


class ModelConfig(EngineConfig):
    """The base class of every model's settings.

    They are the engine's settings, the image size, and those that the subclass adds.

    A subclass may give a setting of the base another default or narrower bounds. It must not change
    the type of one, because the engine reads it.

    Raises:
        TypeError: A subclass, when it is defined, changes the type of a setting of the base.
    """

    image_size: int = Field(32, ge=8)
    """Height and width of the images in pixels, at least 8."""

    augment: Augment = Augment()
    """Random changes of training images."""

    lora: Lora = Lora()
    """Adapters of low rank that are trained in place of the weights (`--lora`)."""

    @pydantic.model_validator(mode="after")
    def _lora_is_not_shared_out(self) -> Self:
        if self.parallel == "fsdp" and self.lora.rank:
            raise ValueError("parallel=fsdp does not go with lora.rank: leave out one of them")
        return self

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        for name, base in ModelConfig.model_fields.items():
            own = cls.model_fields[name].annotation if name in cls.model_fields else None
            if own != base.annotation:
                raise TypeError(
                    f"{cls.__name__}.{name} is {_kind(own)}, "
                    f"but '{name}' is a setting of the training engine ({_kind(base.annotation)}): "
                    "give the model's setting another name"
                )

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        """Return the presets of the model.

        Returns:
            The presets by name, such as "tiny" and that of the paper. The names are those of
            `ModelSpec.presets`.

        Raises:
            TypeError: The class declares no presets.
        """
        raise TypeError(f"{cls.__name__} declares no presets")

    @classmethod
    def sized(cls, size: int, memory: int | None) -> Preset | None:
        """Return the preset `auto`: networks and training settings for an image size and a machine.

        It needs no download. The program adds the budget, the precision and the loader's processes.

        Args:
            size: Height and width of the images in pixels.
            memory: Memory of the accelerator in bytes. None: training runs on the CPU.

        Returns:
            The preset, whose settings include `image_size`. None (the default) if the model has
            named presets only.
        """
        return None


def _kind(annotation: Any) -> str:
    """Return a type as it is written in code."""
    return (
        annotation.__name__
        if isinstance(annotation, type)
        else str(annotation).replace("typing.", "")
    )
