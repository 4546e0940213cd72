"""The folder of a run: the paths of its files, and the search for runs. It does not import torch.

RUN/config.json      configuration, versions, the plugins' distributions, data fingerprint
RUN/metrics.jsonl    the log
RUN/broken.jsonl     broken examples of the data set that were skipped; absent if there are none
RUN/data.json        what was found in the data set's folder, and what was left out
RUN/samples/         grids of samples
RUN/checkpoints/     checkpoints, to resume from
RUN/model/           the model, to sample from
RUN/best/            the model that is the best by `keep_best`, if that setting is used
RUN/summary.json     steps, seconds and cost; written when training is complete
RUN/trackers.json    what identifies the run in each tracker; absent without the setting `track`
RUN/error.txt        the traceback of the last error that nobody foresaw; absent if there was none
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2i.core.errors import UserError
from t2i.core.io.folders import numbered
from t2i.core.io.json_files import read_json
from t2i.core.io.locks import LOCK
from t2i.core.io.sealed import MANIFEST
from t2i.core.registry.tables import registry

if TYPE_CHECKING:
    from t2i.core.runs.configure import RunConfig

RUNS = Path("runs")
"""The folder of all runs, relative to the working directory."""


@dataclass(frozen=True)
class Run:
    """The folder of a run. Creating this object reads and writes nothing.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def config_file(self) -> Path:
        """File of the configuration and the versions."""
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        """File of the log, one JSON object a line (`Log`)."""
        return self.path / "metrics.jsonl"

    @property
    def broken_file(self) -> Path:
        """File of the broken examples that were skipped (`BrokenFile`)."""
        return self.path / "broken.jsonl"

    @property
    def data_file(self) -> Path:
        """File that says what was found in the data set's folder, by split (`Contents`)."""
        return self.path / "data.json"

    @property
    def from_file(self) -> Path:
        """File that lists which tensors of other weights the run started with (`--from`)."""
        return self.path / "from.json"

    @property
    def start(self) -> Path:
        """Folder that describes the networks that the run started with (`--from`)."""
        return self.path / "start"

    @property
    def samples(self) -> Path:
        """Folder of the grids of samples made while training."""
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """Folder of the newest model."""
        return self.path / "model"

    @property
    def best(self) -> Path:
        """Folder of the model that is the best by `keep_best`; absent if that is not set."""
        return self.path / "best"

    @property
    def summary_file(self) -> Path:
        """File that is written when training is complete."""
        return self.path / "summary.json"

    @property
    def trackers_file(self) -> Path:
        """File of what identifies the run in each tracker, by the tracker's name."""
        return self.path / "trackers.json"

    @property
    def complete(self) -> bool:
        """Whether training is complete and the model is there."""
        return self.summary_file.is_file() and self.model.is_dir()

    @property
    def changed(self) -> int:
        """When the run was last worked on, in nanoseconds since 1970; 0 if it holds nothing."""
        places = (self.metrics_file, self.summary_file, self.config_file, self.checkpoints)
        return max((place.stat().st_mtime_ns for place in places if place.exists()), default=0)

    def steps_saved(self) -> list[int]:
        """List the checkpoints.

        Returns:
            The steps N of the folders step-N, in ascending order.
        """
        names = (path.name.removeprefix("step-") for path in self.checkpoints.glob("step-*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def captions(self) -> list[str]:
        """Read the captions of the grids of samples.

        Returns:
            The captions; none if the file cannot be read.
        """
        try:
            return [str(text) for text in read_json(self.samples / "captions.json", "")["captions"]]
        except (UserError, KeyError, TypeError):
            return []

    def example(self) -> str:
        """Choose a caption that the model knows, for a command to copy.

        Returns:
            The first caption of the grids of samples, or one of the embedded data set.
        """
        return next(iter(self.captions()), "a red circle")

    def config(self) -> RunConfig:
        """Read and check the configuration.

        Returns:
            The configuration.

        Raises:
            UserError: The file cannot be read, or something in it is wrong or not installed.
        """
        from t2i.core.runs.configure import RunConfig

        document = read_json(self.config_file, f"run {self.path}")
        run = document.get("run") if isinstance(document, dict) else None
        return RunConfig.parse(run if isinstance(run, dict) else {}, str(self.config_file))

    def summary(self) -> dict[str, Any]:
        """Read the summary.

        Returns:
            The content of `summary_file`.

        Raises:
            UserError: The file cannot be read, or is not a summary.
        """
        summary = read_json(self.summary_file, f"run {self.path}", finite=True)
        if not isinstance(summary, dict):
            raise UserError(f"run {self.path}: {self.summary_file} is not a summary of a run")
        return summary


@contextmanager
def new_run(config: RunConfig, out: Path | None, root: Path = RUNS) -> Iterator[Path]:
    """Give the folder of a new run: the one that the user names, or ROOT/MODEL-DATA-TIME.

    Args:
        config: The run's configuration.
        out: The folder that the user names. None: a new one.
        root: The folder of all runs.

    Yields:
        The folder. A new one exists and is empty; it is removed at the end if it still is.
    """
    if out is not None:
        yield out
        return
    moment = time.strftime("%Y%m%d-%H%M%S")
    with new_folder(root / f"{config.model}-{config.data.name}-{moment}") as folder:
        yield folder


@contextmanager
def new_folder(base: Path) -> Iterator[Path]:
    """Make a new folder for this command alone, whatever other commands make at the same time.

    Args:
        base: The preferred path. Folders above it are made if they do not exist.

    Yields:
        The folder, empty: `base`, or else the first of `base`-2, `base`-3, ... that is free. If it
        is empty at the end it is removed, with the folders above it that were made for it.
    """
    above = [path for path in base.parents if not path.exists()]
    path = next(path for path in numbered(base) if _made(path))
    try:
        yield path
    finally:
        with suppress(OSError):  # it is not empty, or is gone
            path.rmdir()
        with suppress(OSError):
            for parent in () if path.exists() else above:
                parent.rmdir()


def _made(path: Path) -> bool:
    """Make a folder; tell whether it is new."""
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        if not path.parent.is_dir():  # a file is in the way: no other name helps
            raise
        return False
    return True


def is_run(path: Path) -> bool:
    """Tell by file names alone whether a folder is a run.

    Args:
        path: The folder.

    Returns:
        True if there is a configuration or a model, and something else that only runs have.
    """
    run = Run(path)
    if (run.model / MANIFEST).is_file() or (run.path / f".{run.model.name}.old").is_dir():
        return True
    signs = (run.metrics_file, run.checkpoints, run.summary_file, run.samples, path / LOCK)
    return (run.config_file.is_file() and any(sign.exists() for sign in signs)) or (
        run.metrics_file.is_file() and run.checkpoints.is_dir()
    )


def runs_in(folder: Path) -> Iterator[Run]:
    """Find the runs in a folder, and those in the benchmarks' folders in it.

    Args:
        folder: A folder of runs, such as runs/, or the folder of a benchmark.

    Yields:
        The runs FOLDER/NAME, FOLDER/runs/NAME and FOLDER/NAME/runs/NAME, in the order of their
        paths. None if the folder does not exist or cannot be read.
    """
    for pattern in ("*", "runs/*", "*/runs/*"):
        for path in sorted(folder.glob(pattern)):
            if not path.name.startswith(".") and path.is_dir() and is_run(path):
                yield Run(path)


def model_name(run: Run) -> str | None:
    """Read the name of a run's model.

    Args:
        run: The run.

    Returns:
        The name. None if the configuration cannot be read.
    """
    try:
        return str(read_json(run.config_file, "run")["run"]["model"])
    except (UserError, KeyError, TypeError):
        return None


def newest_complete(root: Path = RUNS, model: str | None = None) -> Run | None:
    """Find the newest complete run, also in the benchmarks' folders.

    Runs that cannot be read are ignored: one that is damaged must not prevent the search.

    Args:
        root: The folder of all runs.
        model: Name of its model. None: any.

    Returns:
        The run whose summary was written last. None if there is none.
    """
    found = [
        (run.summary_file.stat().st_mtime_ns, run)
        for run in runs_in(root)
        if run.complete and (name := model_name(run)) and model in (None, name)
    ]
    return max(found, key=lambda pair: pair[0])[1] if found else None


def newest_run(model: str, root: Path = RUNS) -> Run:
    """Find the newest complete run of a model, also in the benchmarks' folders.

    Args:
        model: Name of the model.
        root: The folder of all runs.

    Returns:
        The run whose summary was written last.

    Raises:
        UserError: The model is unknown, or has no complete run. The message says how to get one.
    """
    registry().models[model]
    if run := newest_complete(root, model):
        return run
    begun = [run.path for run in runs_in(root) if model_name(run) == model]
    if begun:
        raise UserError(
            f"no complete run of model '{model}' under {root}/: {begun[-1]} is not finished: "
            f"'t2i train --resume {begun[-1]}' goes on with it, --run {begun[-1]} samples from it "
            "as it is"
        )
    raise UserError(
        f"no complete run of model '{model}' under {root}/: "
        f"train one with 't2i train --model {model}' or import weights with 't2i import "
        f"--model {model} FILE'"
    )
