"""A run's directory: where its files are, and which runs there are.

RUN/config.json      resolved configuration, versions, distribution, data fingerprint
RUN/metrics.jsonl    the log
RUN/broken.jsonl     broken examples of the data set that were passed over, if there are any
RUN/samples/         grids
RUN/checkpoints/     to resume from
RUN/model/           to sample from
RUN/best/            the same where the loss `keep_best` was lowest, if that is asked for
RUN/summary.json     written when training is complete: steps, seconds, cost
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
    """A run directory. Nothing is read or written before it is asked for."""

    path: Path

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    @property
    def metrics_file(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def broken_file(self) -> Path:
        return self.path / "broken.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @property
    def complete(self) -> bool:
        return self.summary_file.is_file() and self.model.is_dir()

    def config(self) -> RunConfig:
        document = read_json(self.config_file, f"run {self.path}")
        run = document.get("run") if isinstance(document, dict) else None
        return RunConfig.parse(run if isinstance(run, dict) else {}, str(self.config_file))

    def summary(self) -> dict[str, Any]:
        summary = read_json(self.summary_file, f"run {self.path}")
        if not isinstance(summary, dict):
            raise UserError(f"run {self.path}: {self.summary_file} is no summary of a run")
        return summary


def new_run_path(config: RunConfig, root: Path = Path("runs")) -> Path:
    """A free folder runs/MODEL-DATA-TIME."""
    return free_path(root / f"{config.model}-{config.data.name}-{time.strftime('%Y%m%d-%H%M%S')}")


def free_path(base: Path) -> Path:
    """`base`, or with the first number at its end that makes a name that is not taken."""
    path, n = base, 1
    while path.exists():
        n += 1
        path = base.with_name(f"{base.name}-{n}")
    return path


def newest_run(model: str, root: Path = Path("runs")) -> Run:
    """The newest complete run of a model under `root`. UserError, naming the ways to get one, if
    there is none."""
    registry().models[model]
    found = []
    for summary in root.glob("*/summary.json"):
        run = Run(summary.parent)
        try:
            if run.complete and read_json(run.config_file, "run")["run"]["model"] == model:
                found.append((summary.stat().st_mtime_ns, run))
        except (UserError, KeyError, TypeError):
            continue  # a damaged neighbour must not stand in the way
    if not found:
        raise UserError(
            f"no complete run of model '{model}' under {root}/: "
            f"train one with 't2i train --model {model}' or import weights with 't2i import "
            f"--model {model} FILE'"
        )
    return max(found, key=lambda pair: pair[0])[1]
