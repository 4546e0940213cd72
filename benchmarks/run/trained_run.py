"""The finished run of a row: found, resumed or made."""

from __future__ import annotations

import shutil
from typing import Literal

from t2i.benchmarks.run.plan import BenchmarkPlan, PlannedRun
from t2i.benchmarks.run.reporter import BenchmarkReporter
from t2i.benchmarks.run.training_record import forget_peak_memory
from t2i.core import engine
from t2i.core.engine.reporting import Reporter as EngineReporter
from t2i.core.errors import UserError
from t2i.core.io.files import read_json, write_json
from t2i.core.io.processes import Group
from t2i.core.runs.folder import Run


def finished_run(
    entry: PlannedRun,
    plan: BenchmarkPlan,
    group: Group,
    reporter: BenchmarkReporter,
    engine_reporter: EngineReporter | None,
    command: str,
) -> Run:
    """The run of an entry, trained as the plan says. All processes of the group take part in the training.

    UserError if there is a run in its place that was trained with other settings.
    """
    state = "given" if entry.given else group.first(lambda: _state(entry, plan, reporter))
    if state in ("given", "complete"):
        return entry.run
    forget_peak_memory()
    if state == "begun":
        engine.resume(entry.run.path, reporter=engine_reporter)
    else:
        engine.train(entry.config, entry.run.path, reporter=engine_reporter, command=command)
    group.wait()  # the first process writes the model
    return entry.run


def _state(
    entry: PlannedRun, plan: BenchmarkPlan, reporter: BenchmarkReporter
) -> Literal["complete", "begun", "new"]:
    """What there is of a run. If nothing, notes what it will be trained with."""
    wanted, asked, run = entry.config.dump(), plan.out / "runs" / f"{entry.label}.json", entry.run
    if run.path.exists():
        if not asked.is_file() or read_json(asked, f"benchmark {plan.out}") != wanted:
            raise UserError(
                f"{run.path} was trained with other settings than these; name another --out, or remove it"
            )
        if run.complete:
            reporter.say(f"{entry.label}: found, trained before ({run.path})")
            return "complete"
        if any(run.checkpoints.glob("step-*")):
            reporter.say(f"{entry.label}: resuming {run.path}")
            return "begun"
        shutil.rmtree(run.path)  # begun, but stopped before anything could be kept
    budget = " ".join(f"{value} {unit}" for unit, value in plan.budget.items())
    reporter.say(f"{entry.label}: training for {budget} into {run.path}")
    write_json(asked, wanted)
    return "new"
