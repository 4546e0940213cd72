"""What a benchmark is asked to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class BenchmarkRequest:
    """One run of a benchmark, as a person asks for it. Nothing of it is checked until a plan is made of it."""

    name: str
    """The registered benchmark."""
    protocol: str | None = None
    """One of its protocols; None: the first."""
    models: Sequence[str] | str | None = None
    """Registered models to train and score, or "all". None: those of `runs`; without any, the benchmark's default."""
    runs: Mapping[str, Path] = field(default_factory=dict)
    """Finished runs to score as they are, by the name of their row: a model's name, or any name that no model has."""
    minutes: float | None = None
    """Training budget of each model; None: the benchmark's, unless `steps` is given."""
    steps: int | None = None
    """The same budget in steps. Only one of the two may be given."""
    samples: int | None = None
    """Captions of the headline set, at least 2, and at most as many of each other set; None: the benchmark's."""
    seeds: int = 1
    """How many times each model is trained, with seeds 0, 1, ..."""
    preset: str | None = None
    """Preset of every model that is trained; None: the benchmark's."""
    data_dir: Path | None = None
    """Folder of the benchmark's data set; None: where `t2i fetch` put it."""
    train_data: str | None = None
    """Another data set to train on; None: the benchmark's."""
    train_dir: Path | None = None
    """Folder of the training data."""
    out: Path | None = None
    """Folder for everything that is made; None: runs/bench-NAME. Finished runs and scores in it are kept, and what was
    begun is resumed."""
    keep_images: bool = False
    """Whether all images that are scored are written as PNG under OUT/images/ROW/."""
    command: str = ""
    """The command line that asked, kept in the results."""
