"""Get the finished run of a row: find it, resume it or train it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from t2i.benchmarks.run.in_training import training_scores
from t2i.benchmarks.run.plan import BenchmarkPlan, PlannedRun
from t2i.benchmarks.run.reporter import BenchmarkReporter
from t2i.benchmarks.run.side_by_side import Training, train_together
from t2i.benchmarks.run.training_record import forget_peak_memory
from t2i.core import engine
from t2i.core.engine.observer import Observer
from t2i.core.engine.reporting import Reporter as EngineReporter
from t2i.core.errors import UserError
from t2i.core.io.json_files import read_json, write_json
from t2i.core.io.locks import folder_lock, take_or_refuse
from t2i.core.io.processes import Group
from t2i.core.runs.configure import RunConfig
from t2i.core.runs.folder import Run


def refuse_other_settings(plan: BenchmarkPlan) -> None:
    """Check the runs that a benchmark's folder holds already, before anything is written to it.

    Args:
        plan: The plan of the benchmark.

    Raises:
        UserError: A run was trained with other settings than the planned ones, such as other data.
    """
    for entry in plan.runs:
        if entry.given or not entry.run.path.exists():
            continue
        asked, wanted = _asked(entry, plan), entry.config.dump()
        found = _recorded(asked, plan)
        if found != wanted:
            changed = differences(found, wanted) if found else ()
            told = ", ".join(f"{name}: {old}, now {new}" for name, old, new in changed)
            raise UserError(
                f"{entry.run.path} was trained with other settings than these"
                f"{told and f' ({told})'}; name another --out, or remove it"
            )


def _asked(entry: PlannedRun, plan: BenchmarkPlan) -> Path:
    """Return the file of the settings that a run was to be trained with."""
    return plan.out / "runs" / f"{entry.label}.json"


def _recorded(asked: Path, plan: BenchmarkPlan) -> Any:
    """Read the settings that a run was to be trained with; {} if they are not there.

    Settings that are newer than the file have their defaults.
    """
    if not asked.is_file():
        return {}
    document = read_json(asked, f"benchmark {plan.out}")
    try:
        return RunConfig.parse(document, str(asked)).dump()
    except UserError:  # of a model or setting that is not there any more
        return document


def differences(old: Any, new: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Find the settings that differ between two configurations.

    Args:
        old: The first, as JSON.
        new: The second.
        name: Where in the whole they are, such as "encoder".

    Yields:
        (name, first value, second value) of each setting; None where one has no such setting.
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield name, old, new


def finished_run(
    entry: PlannedRun,
    plan: BenchmarkPlan,
    group: Group,
    reporter: BenchmarkReporter,
    engine_reporter: EngineReporter | None,
    command: str,
    observer: Observer | None = None,
) -> Run:
    """Train a planned run, unless it is finished.

    All processes of the group take part in the training.

    Args:
        entry: The planned run.
        plan: The plan of the benchmark, which `refuse_other_settings` has checked.
        group: The processes that take part.
        reporter: Receives the progress of the benchmark.
        engine_reporter: Receives the progress of training. None: the engine's default reporter.
        command: The command line, recorded with the run.
        observer: Called between the steps of training. None: nobody.

    Returns:
        The finished run.
    """
    state = "given" if entry.given else group.first(lambda: _state(entry, plan, reporter))
    if state in ("given", "complete"):
        return entry.run
    forget_peak_memory()
    # An observer makes the scores that it wants.
    examining = training_scores if observer is None else None
    if state == "begun":
        engine.resume(
            entry.run.path, reporter=engine_reporter, observer=observer, examining=examining
        )
    else:
        engine.train(
            entry.config, entry.run.path, reporter=engine_reporter, command=command,
            observer=observer, examining=examining,
        )  # fmt: skip
    group.wait()  # until the first process has written the model
    return entry.run


def finished_together(
    entries: Sequence[PlannedRun],
    plan: BenchmarkPlan,
    reporter: BenchmarkReporter,
    reporters: Mapping[str, EngineReporter],
    command: str,
) -> None:
    """Train planned runs at once, those that are not finished.

    Args:
        entries: The planned runs. None is given.
        plan: The plan of the benchmark, which `refuse_other_settings` has checked.
        reporter: Receives the progress of the benchmark.
        reporters: Receive the progress of each training, by the name of its row.
        command: The command line, recorded with the runs.

    Raises:
        UserError: A training raised one.
        Interrupted: A signal stopped the trainings.
        T2IError: A training raised one, or its process was killed.
    """
    states = {entry.label: _state(entry, plan, reporter) for entry in entries}
    trainings = [
        Training(entry.label, entry.run.path, entry.config, begun=states[entry.label] == "begun")
        for entry in entries
        if states[entry.label] != "complete"
    ]
    threads = max(1, torch.get_num_threads() // plan.jobs)
    train_together(trainings, threads, reporters, command)


def _state(
    entry: PlannedRun, plan: BenchmarkPlan, reporter: BenchmarkReporter
) -> Literal["complete", "begun", "new"]:
    """Find out how far a run is. If it is new, write down the settings it will be trained with."""
    run = entry.run
    if run.path.exists():
        if run.complete:
            reporter.say(f"{entry.label}: found, trained before ({run.path})")
            return "complete"
        if any(run.checkpoints.glob("step-*")):
            reporter.say(f"{entry.label}: resuming {run.path}")
            return "begun"
        _remove(run)  # it stopped before its first checkpoint
    own = entry.config.settings
    budget = f"{own.steps} steps" if own.minutes is None else f"{own.minutes:g} minutes"
    reporter.say(
        f"{entry.label}: training for {budget} into {run.path}; "
        f"the newest images are in {run.samples}"
    )
    write_json(_asked(entry, plan), entry.config.dump())
    return "new"


def _remove(run: Run) -> None:
    """Remove a run, unless another process has just begun it."""
    lock = folder_lock(run.path)
    take_or_refuse(
        lock, f"{run.path} is being trained by another process: wait for it, or name another --out"
    )
    try:
        shutil.rmtree(run.path)
    finally:
        lock.release()
