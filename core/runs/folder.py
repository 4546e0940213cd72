"""The folder of a run: the paths of its files, and the search for runs.

RUN/config.json      configuration, versions, the plugins' distributions, data fingerprint
RUN/metrics.jsonl    the log
RUN/broken.jsonl     broken examples of the data set that were skipped; absent if there are none
RUN/samples/         grids of samples
RUN/checkpoints/     checkpoints, to resume from
RUN/model/           the model, to sample from
RUN/best/            the model where the loss `keep_best` was lowest, if that setting is used
RUN/summary.json     steps, seconds and cost; written when training is complete
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.files import read_json
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig


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
        """Folder of the model with the lowest loss `keep_best`; absent if that is not set."""
        return self.path / "best"

    @property
    def summary_file(self) -> Path:
        """File that is written when training is complete."""
        return self.path / "summary.json"

    @property
    def complete(self) -> bool:
        """Whether training is complete and the model is there."""
        return self.summary_file.is_file() and self.model.is_dir()

    @property
    def resumable(self) -> bool:
        """Whether there is a checkpoint; imported weights have none."""
        return any(self.checkpoints.glob("step-*"))

    def config(self) -> RunConfig:
        """Read and check the configuration.

        Returns:
            The configuration.

        Raises:
            UserError: The file cannot be read, or something in it is wrong or not installed.
        """
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
        summary = read_json(self.summary_file, f"run {self.path}")
        if not isinstance(summary, dict):
            raise UserError(f"run {self.path}: {self.summary_file} is not a summary of a run")
        return summary


def new_run_path(config: RunConfig, root: Path = Path("runs")) -> Path:
    """Return a path for a new run: ROOT/MODEL-DATA-TIME.

    Args:
        config: The run's configuration.
        root: The folder of all runs.

    Returns:
        A path that does not exist yet.
    """
    return free_path(root / f"{config.model}-{config.data.name}-{time.strftime('%Y%m%d-%H%M%S')}")


def free_path(base: Path) -> Path:
    """Return a path that does not exist yet.

    Args:
        base: The preferred path.

    Returns:
        `base`, or else the first of `base`-2, `base`-3, ... that is free.
    """
    path, n = base, 1
    while path.exists():
        n += 1
        path = base.with_name(f"{base.name}-{n}")
    return path


def newest_run(model: str, root: Path = Path("runs")) -> Run:
    """Find the newest complete run of a model.

    Runs that cannot be read are ignored.

    Args:
        model: Name of the model.
        root: The folder of all runs.

    Returns:
        The run whose summary was written last.

    Raises:
        UserError: The model is unknown, or has no complete run. The message says how to get one.
    """
    registry().models[model]
    found = []
    for summary in root.glob("*/summary.json"):
        run = Run(summary.parent)
        try:
            if run.complete and read_json(run.config_file, "run")["run"]["model"] == model:
                found.append((summary.stat().st_mtime_ns, run))
        except (UserError, KeyError, TypeError):
            continue  # another run that is damaged must not prevent the search
    if not found:
        raise UserError(
            f"no complete run of model '{model}' under {root}/: "
            f"train one with 't2i train --model {model}' or import weights with 't2i import "
            f"--model {model} FILE'"
        )
    return max(found, key=lambda pair: pair[0])[1]
