"""Checks of a model's training: it runs, gradients reach what is trained, and losses change."""

from __future__ import annotations

import json
import math
from statistics import fmean, variance

from t2i.core.interfaces.trainer import Stage
from t2i.core.kit.conformance.outcome import Skipped, need
from t2i.core.kit.conformance.subject import ModelSubject
from t2i.core.kit.conformance.watch import STEPS, WATCHED, StageRecord

MOVED = 2.5
"""Standard errors by which a logged value must change, on the same batches with the same noise."""


def trains(subject: ModelSubject) -> None:
    """Training takes 50 steps in each of its stages, and makes a complete run with finite losses.

    Args:
        subject: The model.

    Raises:
        Failed: The promise is broken.
    """
    run = subject.trained.run
    need(run.complete, "its run is not complete")
    need(
        not run.summary()["skipped"],
        "updates were left out, for losses or gradients that were not finite",
    )
    names = [stage.name for stage in subject.trained.watcher.stages]
    need(len(set(names)) == len(names), f"two of its stages have one name: {names}")
    for stage in subject.trained.watcher.stages:
        need(
            isinstance(stage, Stage) and stage.share > 0,
            f"stage '{stage.name}' has a share of {stage.share}",
        )
    logged = run.metrics_file.read_text("utf-8") if subject.trained.watcher.stages else ""
    for line in logged.splitlines():
        entry = json.loads(line)
        missing = [name for name, value in entry["losses"].items() if value is None]
        need(not missing, f"stage '{entry['stage']}' logs a '{_some(missing)}' that is not finite")


def gradients(subject: ModelSubject) -> None:
    """In each stage every trained parameter gets a gradient within 5 steps; no other one does.

    Parameters that are in no optimizer do not change, either.

    Args:
        subject: The model.

    Raises:
        Failed: The promise is broken.
        Skipped: The model has nothing to train.
    """
    for seen in _trained(subject):
        where = f"stage '{seen.stage}'"
        need(seen.steps >= WATCHED, f"{where} took {seen.steps} steps")
        missing = sorted(seen.trained - seen.reached)
        need(not missing, f"{where}: within {WATCHED} steps no gradient reaches {_some(missing)}")
        touched = sorted(seen.touched - seen.trained)
        need(not touched, f"{where}: in no optimizer, but given gradients: {_some(touched)}")
        changed = sorted(seen.changed - seen.trained)
        need(not changed, f"{where}: in no optimizer, but changed: {_some(changed)}")


def learns(subject: ModelSubject) -> None:
    """In each stage at least one logged value changes by more than 2.5 standard errors in 50 steps.

    It is measured twice on the stage's first 24 batches, with the same noise.

    Args:
        subject: The model.

    Raises:
        Failed: The promise is broken.
        Skipped: The model has nothing to train.
    """
    for seen in _trained(subject):
        moved = {name: _moved([entry[name] for entry in seen.before],
                              [entry[name] for entry in seen.after])
                 for name in seen.before[0]}  # fmt: skip
        need(bool(moved), f"stage '{seen.stage}' logs nothing")
        most = max(moved, key=lambda name: moved[name])
        need(
            moved[most] > MOVED,
            f"stage '{seen.stage}': in {STEPS} steps nothing that it logs moves ('{most}' most, by "
            f"{moved[most]:.1f} "
            "standard errors)",
        )


def validates(subject: ModelSubject) -> None:
    """Validation losses are finite and the same each time, and computing them changes nothing.

    Networks with their buffers, gradients and modes, optimizers, and the global random generators
    stay as they are. A stage without a validation loss passes.

    Args:
        subject: The model.

    Raises:
        Failed: The promise is broken.
        Skipped: The model has nothing to train.
    """
    for stage in _trained(subject):
        where = f"stage '{stage.stage}': its validation"
        need(not stage.traces, f"{where} changes {_some(sorted(stage.traces))}")
        first, again = stage.validation
        need(first == again, f"{where} losses differ from one call to the next: {first}, {again}")
        wrong = [name for name, value in first.items() if not math.isfinite(value)]
        need(not wrong, f"{where} loss '{_some(wrong)}' is not finite")


def _trained(subject: ModelSubject) -> list[StageRecord]:
    """Return what was seen of each stage; without stages, the check is skipped."""
    if not subject.trained.watcher.seen:
        raise Skipped("it has nothing to train")
    return subject.trained.watcher.seen


def _moved(before: list[float], after: list[float]) -> float:
    """Return the absolute paired t statistic of two lists of values.

    Each difference is divided by the size of its pair, because losses differ much between batches.
    """
    differences = [(b - a) / ((abs(a) + abs(b)) or 1.0) for a, b in zip(before, after, strict=True)]
    error = math.sqrt(variance(differences) / len(differences))
    mean = abs(fmean(differences))
    return mean / error if error else math.inf if mean else 0.0


def _some(names: list[str]) -> str:
    """List the first three names, and say how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
