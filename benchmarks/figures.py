"""Types of the figures in results and summaries, by which files that somebody sent are checked."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Score = Annotated[float, Field(ge=-1e15, le=1e15, allow_inf_nan=False)]
"""A score."""

Amount = Annotated[float, Field(ge=0, le=1e30, allow_inf_nan=False)]
"""Seconds, operations, or a rate."""

Count = Annotated[int, Field(ge=0, le=10**18)]
"""Steps, images, parameters, or bytes."""

Loss = Annotated[float, Field(ge=-1e38, le=1e38, allow_inf_nan=False)]
"""A training loss."""


class _Figures(BaseModel):
    """Figures beside others, which are not checked."""

    model_config = ConfigDict(extra="allow")


class StageCost(_Figures):
    """The cost of a stage of a training, as summaries hold it."""

    name: str
    """Name of the stage."""
    steps: Count
    """Optimizer steps."""
    seconds: Amount = 0.0
    """Seconds of training."""


class Operations(_Figures):
    """The arithmetic of a training, as `Arithmetic.document` returns it."""

    per_step: dict[str, Amount] = {}
    """Operations of a step, by stage."""
    total: Amount | None = None
    """Operations of the training."""
    machine_rate: Amount | None = None
    """Operations per second that the machine reaches with them alone."""


class Settings(_Figures):
    """The configuration of a training."""

    data: dict[str, Any] = {}
    """The training data."""


class TrainingCost(_Figures):
    """The cost of a training: what tables and reports read of a summary, and of a row's record."""

    steps: Count = 0
    """Optimizer steps."""
    images: Count = 0
    """Images shown."""
    seconds: Amount = 0.0
    """Seconds of training."""
    wall_seconds: Amount = 0.0
    """Seconds with all else."""
    images_per_second: Amount = 0.0
    """Images shown in a second."""
    parameters: dict[str, Count] = {}
    """Number of parameters, by what they are."""
    peak_memory_bytes: Count = 0
    """Peak of the memory."""
    stages: list[StageCost] = []
    """The stages."""
    operations: Operations | None = None
    """The arithmetic."""
    run: str = ""
    """The run's folder."""
    given: bool = False
    """Whether the run was given."""
    config: Settings = Settings()
    """The configuration."""


class TrainingScore(BaseModel):
    """A score of a model while it was trained (`t2i.core.engine.scores.Score`)."""

    value: Score
    """The score."""
    interval: tuple[Score, Score] | None = None
    """95 % confidence interval (low, high). None: there is none."""
    title: str = ""
    """What it is."""


class LogLine(_Figures):
    """A line of a training log, as a row's curve holds it."""

    stage: str = ""
    """Name of the stage."""
    seconds: Amount | None = None
    """Seconds of training so far."""
    losses: dict[str, Loss | None] = {}
    """Losses by name; None where they were not finite."""
    scores: dict[str, TrainingScore] = {}
    """Scores of the model at this time, by name."""


class SamplingCost(_Figures):
    """The sampler of a row, and what it takes."""

    seconds_per_image: Amount | None = None
    """Seconds to sample an image."""
