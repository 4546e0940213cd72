"""The base classes of settings.

Everything with settings has a pydantic class for them. Instances are keyword-only and frozen. An
unknown key is an error that names the nearest known key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import pydantic
from pydantic import Field

from t2i.core.errors import UserError, nearest

MOST_LAYERS = 1000
"""Upper bound of settings that count layers or blocks.

Without it, a configuration from elsewhere could keep a process building for ever.
"""


class Config(pydantic.BaseModel):
    """The base class of all settings.

    Each field has a docstring below it. Its first sentence is shown by `t2i settings`.
    """

    model_config = pydantic.ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    renamed: ClassVar[Mapping[str, str]] = {}
    """Current names of renamed settings, by their former names.

    Both names are read; the current one is written. The entries of base classes apply too.
    """

    @classmethod
    def of(
        cls, settings: Mapping[str, Any], where: str, beneath: Mapping[str, Any] | None = None
    ) -> Self:
        """Check settings and make an instance of them.

        Args:
            settings: Settings by name. Former names are allowed.
            where: Name of the settings in error messages.
            beneath: Settings for the keys that `settings` lacks. None: the defaults.

        Raises:
            UserError: A setting is unknown, missing or wrong. The message is one line with `where`,
                the key and the remedy.
        """
        try:
            return cls(**merge(cls.current(beneath or {}), cls.current(settings)))
        except pydantic.ValidationError as error:
            raise UserError(f"{where}: {_explain(cls, error)}") from None
        except ValueError as error:
            raise UserError(f"{where}: {error}") from None

    @classmethod
    def current(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Replace former names of settings by current ones, in nested settings too.

        Args:
            settings: Settings by current or former name.

        Returns:
            The settings by current name.

        Raises:
            ValueError: A setting is given under both of its names, or a name is no text.
        """
        names = {
            old: new
            for base in reversed(cls.__mro__)
            for old, new in vars(base).get("renamed", {}).items()
        }
        present: dict[str, Any] = {}
        for key, value in settings.items():
            if not isinstance(key, str):
                raise ValueError(f"{key!r:.80} is no name of a setting")
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
    """Merge two nested mappings of settings.

    A section of `over` with another "name" replaces that of `base` instead of being merged with it,
    because the settings of one sampler do not fit another.

    Args:
        base: Settings.
        over: Settings that win over those of `base`.
        sections: Keys of mappings that stand for a registered thing even without a "name", namely
            for the default one.

    Returns:
        The merged settings. Neither argument is changed.
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
    """Tell whether two mappings name different things; a section without a name is the default."""
    known = section or "name" in old
    return known and "name" in new and new["name"] != old.get("name")


def _settings_class(cls: type[pydantic.BaseModel], field: str) -> type[Config] | None:
    """Return the class of a field that has nested settings, None for other fields."""
    info = cls.model_fields.get(field)
    inner = info.annotation if info else None
    return inner if isinstance(inner, type) and issubclass(inner, Config) else None


_REASONS = {
    "tuple_type": "it takes a list, such as [1,2]",
    "list_type": "it takes a list, such as [1,2]",
    "dict_type": "it takes names and values, such as {name: value}",
}
"""What is wrong, where pydantic speaks of Python's types."""


def _explain(cls: type[pydantic.BaseModel], error: pydantic.ValidationError) -> str:
    """Describe the first error of a validation in one line."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    if first["type"] == "extra_forbidden":
        known = _fields_at(cls, path[:-1])
        prefix = "".join(part + "." for part in path[:-1])
        return f"no setting is named '{key}'{nearest(key, [prefix + name for name in known])}"
    if first["type"] == "missing":
        return f"setting '{key}' is missing"
    reason = _REASONS.get(first["type"], first["msg"].removeprefix("Value error, "))
    return f"setting '{key}' = {first['input']!r:.80}: {reason}" if key else reason


def _fields_at(cls: type[pydantic.BaseModel], path: list[str]) -> list[str]:
    """List the fields of the nested settings at `path`; none if there are no settings there."""
    for part in path:
        inner = _settings_class(cls, part)
        if inner is None:
            return []
        cls = inner
    return list(cls.model_fields)


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


MOST_SIGMA_REL = 0.288
"""Largest `ema_sigma_rel`: just below the width 1/sqrt(12) of averages of all steps alike."""


class EngineConfig(Config):
    """Settings of the training engine. They have the same names for every model."""

    steps: int = Field(1000, ge=1)
    """Number of optimizer steps of the run, all stages together.

    Ignored if `minutes` is set.
    """

    minutes: float | None = Field(None, gt=0)
    """Training time of the run in minutes, all stages together.

    None: `steps` is the budget.
    """

    batch_size: int = Field(32, ge=1)
    """Number of images of a step, over all processes.

    It must be a multiple of `accumulate` times the number of processes.
    """

    accumulate: int = Field(1, ge=1)
    """Number of parts into which a batch is split to save memory.

    The parts are processed one after the other, and their gradients are averaged into one update.
    """

    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of initial weights, data order, caption choice and noise.

    From 0 to 2**63 - 1.
    """

    log_every: int = Field(50, ge=1)
    """Steps between two entries of the log."""

    sample_every: int = Field(1000, ge=1)
    """Steps between two sample grids.

    A stage also makes one at its end, and others by the clock (`sample_seconds`).
    """

    sample_seconds: float | None = Field(40.0, gt=0)
    """Seconds between two sample grids.

    A stage makes its first one after 10 seconds, or sooner if this is less. The time between two
    grows where grids take more than 3 % of it, and in long stages (a twentieth of their time).
    None: no grids by the clock.
    """

    checkpoint_every: int = Field(1000, ge=1)
    """Steps between two checkpoints.

    A checkpoint is also written at the end of each stage, and when a signal stops the run.
    """

    keep: int = Field(2, ge=1)
    """Number of checkpoints that are kept, the newest ones."""

    keep_best: str | None = Field(None, min_length=1)
    """Name of a logged loss, or of a score, by which the best checkpoint is kept too.

    Its model is in RUN/best. For a loss it is the checkpoint before which the loss was last logged
    lowest. For a score ("validation.diffusion", or one of `scores`) a checkpoint is written as soon
    as the score is better than the best one by more than that one's interval. None: only the newest
    checkpoints are kept.
    """

    scores: tuple[str, ...] | None = None
    """Scores of samples that are made while training, each METRIC, METRIC.SCORE or METRIC:FEATURES.

    `t2i metrics` and `t2i features` list what there is. The samples are of held-out captions,
    always with the same noise. None: those that suit the data set. []: none; the validation loss is
    still computed.
    """

    score_images: int = Field(64, ge=2)
    """Number of held-out captions that are sampled for `scores`, one image of each."""

    score_every: int | None = Field(None, ge=1)
    """Steps between two scorings, whatever they cost.

    None: by the clock (`score_seconds`).
    """

    score_seconds: float | None = Field(60.0, gt=0)
    """Seconds between two scorings.

    The time between two grows where scores take more than `score_share` of it, and in long stages
    (a twentieth of their time). None: no scores by the clock.
    """

    score_share: float = Field(0.05, gt=0, le=1)
    """Largest share of the time that scores by the clock may take.

    A fifth of it is for the validation loss, the rest for samples.
    From above 0 to 1.
    """

    stop_after: int = Field(0, ge=0)
    """Number of scores without a better one after which a stage ends early.

    The score is `keep_best` if that is one, else the first one of the stage. It must be better than
    the best one by more than that one's interval. 0: a stage uses its whole budget.
    """

    ema_decay: float = Field(0.999, ge=0, lt=1)
    """Decay of the averaged weights (EMA), which are the ones that are sampled.

    From 0 to below 1; 0 turns averaging off. After n updates the decay is min(ema_decay, (1 + n) /
    (10 + n)).
    """

    ema_rampup: float | None = Field(None, gt=0)
    """Largest half-life of the averages, as a share of the updates so far (Karras et al. 2022).

    It takes the place of (1 + n) / (10 + n): the decay is min(ema_decay, 0.5^(1 / (ema_rampup n))).
    None: it does not.
    """

    ema_sigma_rel: float | None = Field(None, ge=0.001, le=MOST_SIGMA_REL)
    """Relative width of power-function averages, which take the place of exponential ones.

    They widen with the training, so that no decay depends on its length: the width is the standard
    deviation of the averaged steps, as a share of all (Karras et al. 2024); 0.05 to 0.15 is usual.
    From 0.001 to 0.288. None: exponential averages. Ignored if `ema_decay` is 0.
    """

    grad_clip: float = Field(0.0, ge=0)
    """Largest norm of the gradients of an update; larger ones are scaled down to it.

    0: no clipping. An optimizer of the model may have a value of its own.
    """

    warmup: int = Field(0, ge=0)
    """Number of steps of linear learning-rate warm-up at the beginning of each stage."""

    lr_schedule: Literal["constant", "cosine", "linear", "halving"] = "constant"
    """Learning-rate schedule after the warm-up: constant, cosine, linear or halving.

    It runs over the rest of the stage. "cosine" and "linear" end at `lr_floor`; "halving" halves
    the rates `lr_halvings` times.
    """

    lr_floor: float = Field(0.0, ge=0, le=1)
    """Final learning rate of "cosine" and "linear", as a share of the initial one.

    From 0 to 1.
    """

    lr_hold: float = Field(0.0, ge=0, lt=1)
    """Share of the stage, after the warm-up, before "cosine" and "linear" begin to fall.

    From 0 to below 1. The averaged weights profit from high rates for long (Hagele et al. 2024).
    """

    lr_halvings: int = Field(1, ge=0)
    """Number of times that "halving" halves the learning rates, after equal parts of the stage.

    A paper that halves every 20 of 120 epochs halves 5 times.
    """

    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision: no (float32), bf16, or fp16.

    fp16 needs a GPU. `t2i train --precision auto` times steps and takes bf16 where it is faster.
    """

    gradient_checkpointing: bool = False
    """Compute the blocks of networks again in the backward pass, and keep fewer activations.

    Gradients stay the same. It saves most of the memory of activations, and a step takes about a
    third longer. Networks that cannot do so say so.
    """

    optimizer_bits: Literal[8, 32] = 32
    """Bits of each number that Adam and AdamW keep of the gradients.

    8 takes a quarter of the memory, needs bitsandbytes (pip install bitsandbytes), and rounds:
    results differ a little. Other optimizers stay as they are.
    """

    parallel: Literal["data", "fsdp"] = "data"
    """What several processes share out: "data", or with "fsdp" weights and optimizers too.

    "fsdp" is for networks that do not fit one GPU: each process stores a part of the weights,
    gradients, optimizers' tensors and averages. It excludes `compile`, `channels_last`, fp16,
    `gradient_checkpointing`, `optimizer_bits=8` and LoRA, and nothing is scored while it trains.
    A single process ignores it.
    """

    compile: bool = False
    """Compile the trainer's networks with `torch.compile`."""

    channels_last: bool = False
    """Store networks and images in the channels-last memory format."""

    workers: int = Field(0, ge=0)
    """Number of processes that load data.

    0: the training process loads it.
    """

    threads: int = Field(0, ge=0)
    """Number of CPU threads that torch uses.

    0: torch chooses.
    """

    cache_views: int = Field(0, ge=0)
    """Number of augmented versions of each image whose latents and text features are precomputed.

    Training then reads the stored results instead of running the frozen networks. 0 turns
    precomputing off. Stages without `Trainer.encode` ignore it. The data set must be finite.
    """

    cache_dir: str | None = Field(None, min_length=1)
    """Folder of the precomputed features, which runs with the same features share.

    None: the folder `features` of the run.
    """

    renamed: ClassVar[Mapping[str, str]] = {"tensorboard": "track"}

    track: tuple[str, ...] = ()
    """Trackers that receive the log and the grids too, such as "tensorboard,trackio".

    accelerate has them: tensorboard (into RUN/tensorboard), trackio, wandb, mlflow, comet_ml, aim,
    clearml, dvclive and swanlab. A list, or names with commas between. Empty: none. Its former name
    is `tensorboard`, whose value true is "tensorboard".
    """

    on_nan: Literal["stop", "skip"] = "stop"
    """What to do if a loss or a gradient is not finite: stop the run, or skip the update."""

    def with_(self, **changes: Any) -> Self:
        """Return the settings with some of them changed, and check them.

        Args:
            **changes: New values by name.

        Raises:
            UserError: A setting is unknown or wrong.
        """
        return self.of(changes, "settings", self.model_dump())

    @pydantic.field_validator("track", mode="before")
    @classmethod
    def _tracker_names(cls, value: Any) -> Any:
        """Read names with commas between, and the values of the former setting `tensorboard`."""
        if isinstance(value, bool):
            return ("tensorboard",) if value else ()
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            return value
        return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))

    def check_shared(self, processes: int, stage: str = "") -> None:
        """Check that processes can share each part of a batch out.

        Args:
            processes: The number of processes.
            stage: Name of the stage that these settings are for, for errors. "": all stages.

        Raises:
            UserError: They cannot.
        """
        rows = self.accumulate * processes
        if self.batch_size % rows == 0:
            return
        fitting = [n for n in range(1, self.accumulate) if self.batch_size % (n * processes) == 0]
        near = max(1, round(self.batch_size / rows)) * rows
        remedy = f"accumulate={fitting[-1]}" if fitting else f"batch_size={near}"
        raise UserError(
            f"{f'stage {stage}: ' if stage else ''}batch_size ({self.batch_size}) must be a "
            f"multiple of accumulate ({self.accumulate}) times the number of processes "
            f"({processes}): set {remedy}, for example"
        )

    @pydantic.model_validator(mode="after")
    def _fsdp_excludes(self) -> Self:
        others = {
            "compile=true": self.compile,
            "channels_last=true": self.channels_last,
            "precision=fp16": self.precision == "fp16",
            "gradient_checkpointing=true": self.gradient_checkpointing,
            "optimizer_bits=8": self.optimizer_bits == 8,
        }
        if self.parallel == "fsdp" and any(others.values()):
            other = next(name for name, given in others.items() if given)
            raise ValueError(f"parallel=fsdp does not go with {other}: leave out one of them")
        return self

    @pydantic.model_validator(mode="after")
    def _parts_are_whole(self) -> Self:
        if self.ema_sigma_rel is not None and self.ema_rampup is not None:
            raise ValueError(
                "ema_rampup belongs to exponential averages: leave it out, or leave out "
                "ema_sigma_rel"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of "
                f"accumulate ({self.accumulate})"
            )
        return self


WHOLE_RUN = frozenset(
    {
        "steps",
        "minutes",
        "seed",
        "precision",
        "parallel",
        "threads",
        "keep",
        "keep_best",
        "track",
        "scores",
        "score_images",
        "score_every",
        "score_seconds",
        "score_share",
        "stop_after",
        "on_nan",
    }
)
"""Engine settings of the whole run: its budget and seed, what it keeps, and how it computes."""

STAGE_SETTINGS = frozenset(EngineConfig.model_fields) - WHOLE_RUN
"""Engine settings that a stage may change for itself (`Stage.settings`)."""


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


class DataConfig(Config):
    """The base class of every data set's settings."""

    image_size: int = Field(32, ge=8)
    """Height and width at which images are loaded, in pixels.

    The run sets it to the size that the model needs.
    """

    dir: str | None = None
    """Folder of the data set.

    None: no folder is given. Data sets that are read from a folder then raise an error.
    """

    max_broken: float = Field(0.01, ge=0, lt=1)
    """Largest share of unreadable examples.

    From 0 to below 1. Up to this share they are skipped; beyond it, reading fails if they are more
    than `few_broken` too.
    """

    few_broken: int = Field(5, ge=0)
    """Number of unreadable examples that are skipped whatever their share is.

    More than half of a data set is always too much. 0: `max_broken` alone decides.
    """


class AbsentData(DataConfig):
    """Settings of a data set that is not installed, kept unchecked.

    A model that was trained on it can still be sampled.
    """

    model_config = pydantic.ConfigDict(extra="allow")
