"""The request that starts a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class BenchmarkRequest:
    """One run of a benchmark, as the user requests it.

    The fields are checked when `make_plan` turns the request into a plan, not before.
    """

    name: str
    """Name of a registered benchmark."""
    protocol: str | None = None
    """One of the benchmark's protocols. None: its first."""
    models: Sequence[str] | str | None = None
    """Registered models to train and score, or "all". None: the models of `runs`; without `runs`,
    the benchmark's default models."""
    runs: Mapping[str, str | Path] = field(default_factory=dict)
    """Runs to score without training, by the name of their row: whatever `t2i.load` takes.

    That name is the name of the run's model, or any name that no model has.
    """
    minutes: float | None = None
    """Training budget of each model, in minutes of the whole machine. None: the benchmark's budget,
    unless `steps` is given."""
    steps: int | None = None
    """Training budget of each model, in steps. Only one of `minutes` and `steps` may be given."""
    samples: int | None = None
    """Number of captions in the headline set, at least 2. It also limits every other set. None: the
    benchmark's numbers."""
    seeds: int = 1
    """How many times each model is trained: with seeds 0 to `seeds` - 1. At least 1."""
    jobs: int | None = 1
    """How many models are trained at once, each in a process of its own with its share of the cores
    and for as many times as long. Plugins must be installed then, not only registered in this
    process. None: on a CPU as many as divide the trainings evenly, 4 at most; else 1."""
    preset: str | None = None
    """Preset of every model that is trained. None: the first of the benchmark's presets that the
    model has, else the model's first."""
    data_dir: Path | None = None
    """Folder of the benchmark's data set. None: where `t2i fetch` put it."""
    data: str | None = None
    """Data set, for benchmarks of the user's own images. None: the benchmark's."""
    data_settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of that data set by name, for such benchmarks."""
    image_size: int | None = None
    """Height and width of the images, for such benchmarks, in pixels. None: chosen by the size of
    the images, or that of the runs that are given."""
    train_data: str | None = None
    """Data set to train on. None: the benchmark's."""
    train_dir: Path | None = None
    """Folder of the training data. None: the folder of the benchmark's data set, if that is trained
    on."""
    out: Path | None = None
    """Folder for all output. None: runs/bench-NAME, or runs/bench-NAME-PROTOCOL if the protocol is
    not the first; of the user's own images, the name of their folder follows. Finished runs and
    scores in it are kept, unfinished ones are resumed."""
    keep_images: bool = False
    """Whether all scored images of models are written as PNG files, under OUT/pictures/ROW/."""
    likelihood: int | None = None
    """Number of real images whose likelihood is computed, for models that can compute it; at least
    2. None: none, unless the benchmark measures it by itself."""
    votes: Sequence[Path] = ()
    """Files of votes on images of the rows' models. The table shows them in a column."""
    command: str = ""
    """The command line, recorded in the results."""
    began: float | None = field(default=None, compare=False)
    """When the command began, in seconds of `time.monotonic`. None: when the benchmark does."""
