"""The request of a speed run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SpeedrunRequest:
    """A speed run, as the user requests it.

    The fields are checked when `make_plan` turns the request into a plan, not before.
    """

    benchmark: str | None = None
    """Name of a registered benchmark. None: the first one that declares marks."""
    protocol: str | None = None
    """One of the benchmark's protocols. None: its first."""
    models: Sequence[str] | str | None = None
    """Registered models, or "all". None: the benchmark's default models."""
    preset: str | None = None
    """Preset of every model. None: the first of the benchmark's that the model has."""
    sets: Sequence[str] = ()
    """Settings of every model that replace those of the preset, "K=V"."""
    targets: Sequence[float] = ()
    """Headline scores to time. Empty: the benchmark's marks for the family of the model."""
    minutes: float | None = None
    """Training budget of each model, in minutes, and so the limit. None: the benchmark's budget,
    unless `steps` is given."""
    steps: int | None = None
    """The same in steps. Only one of `minutes` and `steps` may be given."""
    seed: int = 0
    """Seed of the training."""
    every: float | None = None
    """How much training lies between two scores: seconds; steps, if the budget is in steps. None: a
    twentieth of the budget."""
    samples: int | None = None
    """Number of captions, at least 2. None: the benchmark's."""
    data_dir: Path | None = None
    """Folder of the benchmark's data set. None: where `t2i fetch` put it."""
    out: Path | None = None
    """Folder for all output. None: runs/speedrun-NAME. Finished models in it are kept, unfinished
    ones are resumed."""
    note: str = ""
    """What was changed, for the records."""
    record: Path | None = None
    """Markdown file that gets a line for each model. None: no line is written."""
    command: str = ""
    """The command line, recorded in the results."""
