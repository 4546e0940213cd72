"""Run speed runs: train models until a fixed score is reached, and say how long it took.

Everything that is finished is kept under OUT, so the same command does only what is missing:

OUT/runs/MODEL/            the run, as `t2i train` writes it, with the model that was scored last
OUT/runs/MODEL.json        the settings that it was to be trained with
OUT/entries/MODEL.json     the scores so far, with the key of everything that they depend on
OUT/operations.json        operations of the training steps
OUT/speedrun.json          the results
OUT/speedrun.svg           the scores over minutes of training
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from t2i.benchmarks.report.plots import score_curves
from t2i.benchmarks.run.arithmetic import Arithmetic, counted
from t2i.benchmarks.run.out_folder import held_out
from t2i.benchmarks.run.reporter import BenchmarkLines, BenchmarkReporter
from t2i.benchmarks.run.trained_run import finished_run, refuse_other_settings
from t2i.benchmarks.run.training_record import environment, summary_of
from t2i.benchmarks.score.extraction import fingerprint
from t2i.benchmarks.speedrun.judge import Judge
from t2i.benchmarks.speedrun.plan import PlannedEntry, SpeedrunPlan, make_plan
from t2i.benchmarks.speedrun.records import add_records
from t2i.benchmarks.speedrun.request import SpeedrunRequest
from t2i.benchmarks.speedrun.results import Entry, SpeedrunResults
from t2i.benchmarks.speedrun.watch import MarksReached, Watch
from t2i.core.devices import best_device
from t2i.core.engine.context import signal_name
from t2i.core.engine.observer import Moment
from t2i.core.engine.reporting import Reporter as EngineReporter
from t2i.core.errors import Interrupted, UserError
from t2i.core.io.files import write_bytes
from t2i.core.io.json_files import read_object, write_json
from t2i.core.io.processes import Group
from t2i.core.models.loading import load
from t2i.core.registry.tables import registry
from t2i.core.runs.folder import Run


def run_speedrun(
    request: SpeedrunRequest,
    reporter: BenchmarkReporter | None = None,
    engine_reporter: EngineReporter | None = None,
) -> SpeedrunResults:
    """Train the models of a request until their marks are reached, and write the results.

    Args:
        request: The benchmark, the models and their settings.
        reporter: Receives the progress. None: lines on stderr.
        engine_reporter: Receives the progress of training. None: the engine's default reporter.

    Returns:
        The results.

    Raises:
        UserError: Something in the request is unknown, missing or contradictory, there are several
            processes, or a run in `out` was made with other settings. This is checked before
            anything is trained.
    """
    group = Group()
    if group.size > 1:
        raise UserError("speed runs are made in one process: start 't2i' without torchrun")
    plan = make_plan(request)
    return _Session(plan, group, reporter or BenchmarkLines(), engine_reporter).run()


@dataclass
class _Session:
    """Speed runs while they are made. What must outlive the command is in files."""

    plan: SpeedrunPlan
    group: Group
    reporter: BenchmarkReporter
    engine_reporter: EngineReporter | None

    def run(self) -> SpeedrunResults:
        with held_out(self.plan.plan.out, self.group):
            return self._run()

    def _run(self) -> SpeedrunResults:
        plan, request = self.plan.plan, self.plan.request
        refuse_other_settings(plan)
        self.judge = Judge(plan.benchmark, plan.data_dir, best_device())
        entries = [self._kept(planned) for planned in self.plan.entries]
        self.reporter.say(plan.told())
        for planned, entry in zip(self.plan.entries, entries, strict=True):
            if entry.done:
                self.reporter.say(f"{entry.label}: done before ({planned.run.run.path})")
            else:
                self._make(planned, entry)
        results = SpeedrunResults(
            plan.benchmark.name, self.judge.protocol(), self.judge.column, plan.budget,
            self.plan.every, entries, environment(best_device()), request.note, request.command,
            time.strftime("%Y-%m-%dT%H:%M:%S%z"), plan.out,
        )  # fmt: skip
        self._write(results)
        return results

    def _write(self, results: SpeedrunResults) -> None:
        out, record = results.out, self.plan.request.record
        write_json(out / "speedrun.json", results.document())
        curves = {
            entry.label: [(p.seconds / 60, p.score, p.whole) for p in entry.points]
            for entry in results.entries
        }
        marks = sorted({target for entry in results.entries for target in entry.targets})
        write_bytes(out / "speedrun.svg", score_curves(curves, marks, results.headline))
        self.reporter.say(f"written: {out / 'speedrun.json'}, {out / 'speedrun.svg'}")
        if record is not None:
            add_records(record, results)
            self.reporter.say(f"recorded: {record}")

    # --- one model

    def _make(self, planned: PlannedEntry, entry: Entry) -> None:
        """Train a model until its last mark is reached, or its budget is spent."""
        began, before = time.perf_counter(), entry.scoring_seconds
        spent = entry.points[-1].seconds if entry.points else 0.0
        known = self._arithmetic(planned)
        watch = Watch(
            entry, self.judge, planned.run.run, self.plan.every, self.plan.by_steps, known,
            lambda: self._save(planned, entry),
        )  # fmt: skip
        if entry.next_mark() is not None:
            self._train(planned, watch)
        last = entry.points[-1]
        entry.machine_rate = known.rate(last.steps) if known else None
        entry.threads, entry.done = torch.get_num_threads(), True
        taken = time.perf_counter() - began
        entry.other_seconds += max(
            0.0, taken - (last.seconds - spent) - (entry.scoring_seconds - before)
        )
        self._save(planned, entry)
        if not last.step:
            self.reporter.say(
                f"{entry.label}: nothing is trained, so all of its budget is spent in sampling"
            )
        self.reporter.say(
            f"{entry.label}: not counted: {entry.scoring_seconds:.0f} s of sampling and scoring, "
            f"{entry.other_seconds:.0f} s of set-up, grids and checkpoints"
        )

    def _train(self, planned: PlannedEntry, watch: Watch) -> None:
        """Train until the last mark is reached, or to the budget's end, which is scored too."""
        label = planned.run.label
        try:
            run = finished_run(
                planned.run, self.plan.plan, self.group, self.reporter, self.engine_reporter,
                self.plan.request.command, watch,
            )  # fmt: skip
        except MarksReached:
            self.reporter.say(f"{label}: the mark is reached")
            return
        except Interrupted as stop:
            number = stop.exit_code - 128
            told = f"{label}: stopped by {signal_name(number)}; the same command goes on"
            raise Interrupted(told, number) from None
        watch.score(_end(run), load(run.path, str(best_device())), self.reporter.say, None)

    def _arithmetic(self, planned: PlannedEntry) -> Arithmetic | None:
        """Count the operations of a step, before the training."""
        file = self.plan.plan.out / "operations.json"
        return counted(planned.run.label, planned.run.config, file, self.reporter.say)

    # --- what is kept

    def _file(self, planned: PlannedEntry) -> Path:
        return self.plan.plan.out / "entries" / f"{planned.run.label}.json"

    def _key(self, planned: PlannedEntry) -> dict[str, str]:
        parts = {
            "settings": planned.run.config.dump(), "marks": list(planned.targets),
            "every": self.plan.every, "captions": self.judge.protocol(),
        }  # fmt: skip
        return {name: fingerprint(part) for name, part in parts.items()}

    def _save(self, planned: PlannedEntry, entry: Entry) -> None:
        write_json(self._file(planned), {"key": self._key(planned), "entry": entry.document()})

    def _kept(self, planned: PlannedEntry) -> Entry:
        """Return the entry of a model as far as it is made; it must have the same key."""
        run, file = planned.run, self._file(planned)
        if not file.is_file():
            return Entry(
                run.label, run.name, registry().models[run.name].family, run.config.preset,
                planned.changed, run.seed, _ordered(planned.targets, self.judge.higher),
                self.judge.higher,
            )  # fmt: skip
        document = read_object(file, "speed run", finite=True)
        key, kept = self._key(planned), document.get("key")
        other = [n for n in key if not isinstance(kept, dict) or kept.get(n) != key[n]]
        if other:
            raise UserError(
                f"{file} was made with other options ({', '.join(other)}); name another --out, or "
                "remove it and its run"
            )
        entry = Entry.parse(document.get("entry"), file)
        if entry.label != run.label or (entry.done and not entry.points):
            raise UserError(f"{file} is damaged; remove it and its run")
        return entry


def _ordered(targets: Iterable[float], higher: bool) -> tuple[float, ...]:
    """Sort marks from the easiest on."""
    return tuple(sorted(set(targets), reverse=not higher))


def _end(run: Run) -> Moment:
    """Return the end of a finished run."""
    summary = summary_of(run)
    stages = summary.get("stages")
    if stages == []:  # a model with nothing to train
        return Moment("", True, 0, {}, 0.0, 0.0)
    if not stages:
        raise UserError(f"{run.summary_file} lacks the stages: remove the run {run.path}")
    steps = {stage["name"]: stage["steps"] for stage in stages}
    last = stages[-1]
    return Moment(last["name"], True, summary["steps"], steps, summary["seconds"], last["seconds"])
