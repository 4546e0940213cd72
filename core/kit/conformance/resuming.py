"""The check that a resumed run is identical to one that was never interrupted."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from t2i.core.engine import resume
from t2i.core.engine.reporting import Silent
from t2i.core.io.tensors import load_tensors
from t2i.core.kit.conformance.outcome import Skipped, need
from t2i.core.kit.conformance.subject import CUT, ModelSubject
from t2i.core.kit.conformance.watch import STEPS, Enough, Watcher
from t2i.core.runs.folder import Run


def resumes(subject: ModelSubject) -> None:
    """Interrupted in any stage and resumed, its weights and losses are identical, bit for bit.

    They are compared with those of a run that was never interrupted.

    Args:
        subject: The model.

    Raises:
        Failed: The promise is broken.
        Skipped: The model has nothing to train.
    """
    whole, stages = subject.trained.run, subject.trained.watcher.stages
    if not stages:
        raise Skipped("it has nothing to train")
    for number, stage in enumerate(stages, start=1):
        part = Run(subject.folder / f"cut-{number}")
        _cut(whole, part, CUT * number)
        torch.manual_seed(number)  # the state of this process must not matter
        with contextlib.suppress(Enough):
            resume(part.path, reporter=Silent(), wrap=Watcher(stop_after=number).wrap)
        end, where = STEPS * number, f"resumed at step {CUT * number}, in stage '{stage.name}'"
        ours, theirs = (_weights(run.checkpoints / f"step-{end}") for run in (part, whole))
        need(ours.keys() == theirs.keys(), f"{where}, it saves other tensors")
        differing = [name for name in ours if not torch.equal(ours[name], theirs[name])]
        need(not differing, f"{where}, it ends with other weights: {', '.join(differing[:3])}")
        need(_losses(part, end) == _losses(whole, end), f"{where}, it has other losses")
        shutil.rmtree(part.path)


def _cut(whole: Run, part: Run, step: int) -> None:
    """Copy a run as it was at a step: its settings, its encoder's files, and one checkpoint."""
    part.checkpoints.mkdir(parents=True)
    shutil.copy(whole.config_file, part.config_file)
    shutil.copy(whole.metrics_file, part.metrics_file)
    shutil.copytree(whole.model, part.model)
    shutil.copytree(whole.checkpoints / f"step-{step}", part.checkpoints / f"step-{step}")


def _weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read the weights in a checkpoint, by file and name."""
    files = sorted(checkpoint.glob("modules.*.safetensors"))
    return {
        f"{file.name}/{name}": x
        for file in files
        for name, x in load_tensors(file, "checkpoint").items()
    }


def _losses(run: Run, until: int) -> list[Any]:
    """Read (step, losses) from the log, up to and including a step."""
    entries = [json.loads(line) for line in run.metrics_file.read_text("utf-8").splitlines()]
    return [(entry["step"], entry["losses"]) for entry in entries if entry["step"] <= until]
