"""The settings of the training engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import pydantic
from pydantic import Field

from t2i.core.errors import UserError
from t2i.core.settings.base import Config

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
