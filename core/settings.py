"""Settings: one pydantic class a thing, keyword-only, frozen, unknown keys refused with the nearest known one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pydantic
from pydantic import Field

from t2i.core.errors import UserError, nearest

MOST_LAYERS = 1000
"""Layers or blocks of one kind, at most: a configuration from elsewhere must not keep a process building for ever."""


class Config(pydantic.BaseModel):
    """Base of all settings. A docstring under a field says what it is."""

    model_config = pydantic.ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    renamed: ClassVar[Mapping[str, str]] = {}
    """Former names of this class's settings -> the names of today. Both are read, the latter are written. Those of a
    base class hold as well."""

    @classmethod
    def of(
        cls, settings: Mapping[str, Any], where: str, beneath: Mapping[str, Any] | None = None
    ) -> Self:
        """Checks settings.

        Args:
            settings: by name; former names are understood.
            where: what errors call them.
            beneath: settings that these are laid over.

        Raises:
            UserError: one line, naming `where`, the key and the remedy.
        """
        try:
            return cls(**merge(cls.current(beneath or {}), cls.current(settings)))
        except pydantic.ValidationError as error:
            raise UserError(f"{where}: {_explain(cls, error)}") from None
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None

    @classmethod
    def current(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings under their names of today, those of nested classes too.

        Raises:
            ValueError: a setting is given under both of its names.
        """
        names = {
            old: new
            for base in reversed(cls.__mro__)
            for old, new in vars(base).get("renamed", {}).items()
        }
        present: dict[str, Any] = {}
        for key, value in settings.items():
            name = names.get(key, key)
            if name in present or (name != key and name in settings):
                raise ValueError(f"'{key}' is the former name of '{name}': give one of them")
            inner = _settings_class(cls, name)
            present[name] = inner.current(value) if inner and isinstance(value, Mapping) else value
        return present

    @pydantic.model_validator(mode="before")
    @classmethod
    def _renamed(cls, settings: Any) -> Any:
        return cls.current(settings) if isinstance(settings, Mapping) else settings


def merge(
    base: Mapping[str, Any], over: Mapping[str, Any], sections: Collection[str] = ()
) -> dict[str, Any]:
    """`over` laid on `base`, mapping by mapping. One that names another thing than before starts afresh: the settings
    of one sampler are not those of another.

    Args:
        sections: keys of mappings that name a thing, by default if not by "name".
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(old, Mapping)
            and not _other(old, value, key in sections)
        ):
            merged[key] = merge(old, value, sections)
        else:
            merged[key] = value
    return merged


def option_layer(
    options: Mapping[str, Any],
    *,
    data: str | None = None,
    data_dir: str | Path | None = None,
    encoder: str | None = None,
) -> dict[str, Any]:
    """Make a layer of settings from a command's options.

    Args:
        options: Settings of the engine by name; None where an option is not given.
        data: Name of the data set. None: not given.
        data_dir: Folder of the data set. None: not given.
        encoder: Name of the text encoder. None: not given.

    Returns:
        The layer. A budget in steps ends a budget in minutes that a preset or a file may have set.

    Raises:
        UserError: Both budgets are given.
    """
    layer = {name: value for name, value in options.items() if value is not None}
    if "steps" in layer and "minutes" in layer:
        raise UserError("--steps and --minutes are two ways to say the budget: give one of them")
    if "steps" in layer:
        layer["minutes"] = None
    section = {"name": data, "dir": None if data_dir is None else str(data_dir)}
    layer["data"] = {name: value for name, value in section.items() if value is not None}
    layer["encoder"] = {} if encoder is None else {"name": encoder}
    return layer


def _other(old: Mapping[str, Any], new: Mapping[str, Any], section: bool) -> bool:
    """Whether two mappings name different things. A section that named nothing had the default's settings."""
    known = section or "name" in old
    return known and "name" in new and new["name"] != old.get("name")


def _settings_class(cls: type[pydantic.BaseModel], field: str) -> type[Config] | None:
    """The class of a field whose value is nested settings; None of any other."""
    info = cls.model_fields.get(field)
    inner = info.annotation if info else None
    return inner if isinstance(inner, type) and issubclass(inner, Config) else None


def _explain(cls: type[pydantic.BaseModel], error: pydantic.ValidationError) -> str:
    """The first error of a validation, in one line."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = _fields_at(cls, path[:-1])
        prefix = "".join(part + "." for part in path[:-1])
        return f"no setting is named '{key}'{nearest(key, [prefix + name for name in known])}"
    if first["type"] == "missing":
        return f"setting '{key}' is missing"
    reason = first["msg"].removeprefix("Value error, ")
    return f"setting '{key}' = {first['input']!r:.80}: {reason}" if key else reason


def _fields_at(cls: type[pydantic.BaseModel], path: list[str]) -> list[str]:
    """Names of the fields of the nested settings class at `path` (those of `cls` itself where it cannot be told)."""
    for part in path:
        inner = _settings_class(cls, part)
        if inner is None:
            return []
        cls = inner
    return list(cls.model_fields)


class Augment(Config):
    """How a training image is varied. scale: loaded at scale * image_size and cropped at random; flip: mirrored
    half of the time (not where captions speak of left and right)."""

    scale: float = Field(1.0, ge=1.0, le=4.0)
    flip: bool = False


class EngineConfig(Config):
    """Settings of the training engine: the same names for every model.

    steps: optimizer steps of the whole run, all stages together. minutes: the same as a time budget; set, it wins.
    batch_size: images a step, over all processes. accumulate: parts into which a batch is split, one after the other,
    to save memory: their gradients are averaged into one update.
    seed: of initial weights, order, captions and noise.
    log_every, sample_every, checkpoint_every: steps. keep: checkpoints kept. keep_best: name of a logged loss; the
    checkpoint where it was last seen lowest is kept as well, and its model in RUN/best.
    ema_decay: of the averaged weights that are sampled (0: none); it warms up as (1 + n) / (10 + n).
    grad_clip: maximal norm of the gradients of one update (0: none). warmup: steps of linear learning-rate warm-up.
    lr_schedule: what follows, over the rest of the stage. lr_floor: where cosine and linear end, as a share of lr.
    lr_halvings: how often "halving" halves the rates, after equal parts of the stage ("every 20 of 120 epochs" is 5).
    precision: no (float32), bf16 or fp16. compile: torch.compile the trainer's modules. channels_last: memory format.
    workers: loader processes (0: in the training process). threads: torch's threads (0: torch's own choice).
    cache_views: views (crops, mirrorings) of each image of which frozen networks' work, latents and text features, is
    computed once and stored; training then reads it. 0: computed at each visit. Of stages that can (`Trainer.encode`).
    cache_dir: folder for it, shared by runs that store the same (None: in the run's own).
    tensorboard: write TensorBoard files too. on_nan: stop, or skip the update, when a loss or gradient is not finite.
    """

    steps: int = Field(1000, ge=1)
    minutes: float | None = Field(None, gt=0)
    batch_size: int = Field(32, ge=1)
    accumulate: int = Field(1, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)
    log_every: int = Field(50, ge=1)
    sample_every: int = Field(1000, ge=1)
    checkpoint_every: int = Field(1000, ge=1)
    keep: int = Field(2, ge=1)
    keep_best: str | None = Field(None, min_length=1)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    grad_clip: float = Field(0.0, ge=0)
    warmup: int = Field(0, ge=0)
    lr_schedule: Literal["constant", "cosine", "linear", "halving"] = "constant"
    lr_floor: float = Field(0.0, ge=0, le=1)
    lr_halvings: int = Field(1, ge=0)
    precision: Literal["no", "bf16", "fp16"] = "no"
    compile: bool = False
    channels_last: bool = False
    workers: int = Field(0, ge=0)
    threads: int = Field(0, ge=0)
    cache_views: int = Field(0, ge=0)
    cache_dir: str | None = Field(None, min_length=1)
    tensorboard: bool = False
    on_nan: Literal["stop", "skip"] = "stop"

    def with_(self, **changes: Any) -> Self:
        """The same settings but for these, checked. UserError if one is unknown or wrong."""
        return self.of(changes, "settings", self.model_dump())

    @pydantic.model_validator(mode="after")
    def _parts_are_whole(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of accumulate ({self.accumulate})"
            )
        return self


WHOLE_RUN = frozenset(
    {
        "steps",
        "minutes",
        "seed",
        "precision",
        "threads",
        "keep",
        "keep_best",
        "tensorboard",
        "on_nan",
    }
)
"""Settings of the engine that are the whole run's: its budget and seed, what it keeps, and how it computes."""

STAGE_SETTINGS = frozenset(EngineConfig.model_fields) - WHOLE_RUN
"""Settings of the engine that a stage may have of its own (`Stage.settings`)."""


@dataclass(frozen=True)
class Preset:
    """A named instance of a model's settings, with the data, encoder and sampler that go with it.

    `settings` are the model's; `data`, `encoder` and `sampler` are (registry name, settings). None: the registry's
    default, for a sampler that of the model's family.
    """

    settings: Mapping[str, Any]
    data: tuple[str, Mapping[str, Any]] | None = None
    encoder: tuple[str, Mapping[str, Any]] | None = None
    sampler: tuple[str, Mapping[str, Any]] | None = None


class ModelConfig(EngineConfig):
    """Base of every model's settings: the engine's, the image size, and (in the subclass) the model's own.

    A subclass may give one of the base's settings another default or narrower bounds. It may not use its name for
    something else: the engine would take that for its own.
    """

    image_size: int = Field(32, ge=8)
    augment: Augment = Augment()

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        for name, base in ModelConfig.model_fields.items():
            own = cls.model_fields[name].annotation if name in cls.model_fields else None
            if own != base.annotation:
                raise TypeError(
                    f"{cls.__name__}.{name} is {_kind(own)}, but '{name}' is a setting of the training engine "
                    f"({_kind(base.annotation)}): give the model's setting another name"
                )

    @classmethod
    def presets(cls) -> Mapping[str, Preset]:
        """The presets by name: "tiny", the paper's, ..."""
        raise TypeError(f"{cls.__name__} declares no presets")


def _kind(annotation: Any) -> str:
    """A type as it is written."""
    return (
        annotation.__name__
        if isinstance(annotation, type)
        else str(annotation).replace("typing.", "")
    )


class DataConfig(Config):
    """Base of every data set's settings. image_size: set by the run to the size that the model loads.

    dir: the folder, where the data set lives in one.
    max_broken: share of the examples that may be broken: so many are passed over, more of them stop whoever reads.
    """

    image_size: int = Field(32, ge=8)
    dir: str | None = None
    max_broken: float = Field(0.01, ge=0, lt=1)


class AbsentData(DataConfig):
    """Settings of a data set that is not installed, kept as they are: what was trained on it is still drawn from."""

    model_config = pydantic.ConfigDict(extra="allow")
