"""The plan of a speed run: the request resolved and checked before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2i.benchmarks.benchmark_request import BenchmarkRequest
from t2i.benchmarks.run.chosen_benchmark import find_benchmark, with_samples
from t2i.benchmarks.run.own_data import filled_in
from t2i.benchmarks.run.plan import (
    BenchmarkPlan,
    PlannedRun,
    budget_of,
    choose_models,
    data_folder,
    planned_training,
    training_data,
)
from t2i.benchmarks.run.trained_run import differences
from t2i.benchmarks.speedrun.records import check_records
from t2i.benchmarks.speedrun.request import SpeedrunRequest
from t2i.core.errors import UserError
from t2i.core.interfaces.scoring import Benchmark
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import parse_sets
from t2i.core.runs.folder import RUNS

SCORES = 20
"""Scores in a run, unless the user says how often."""

FIXED: Mapping[str, str] = {
    "data": "the benchmark gives the training data",
    "image_size": "the benchmark gives the image size",
    "minutes": "give --minutes",
    "steps": "give --steps",
    "seed": "give --seed",
}
"""Settings that are not the model's to choose in a speed run."""


@dataclass(frozen=True)
class PlannedEntry:
    """The speed run of one model.

    Args:
        run: The training.
        targets: The marks, from the easiest on.
        changed: Settings that differ from the preset, by name, as text.
    """

    run: PlannedRun
    targets: tuple[float, ...]
    changed: Mapping[str, str]


@dataclass(frozen=True)
class SpeedrunPlan:
    """A speed run and its folders.

    Args:
        plan: The plan of the trainings, as a benchmark has one.
        entries: The models, in the order of the plan's runs.
        every: Seconds of training between two scores; steps, if the budget is in steps.
        request: The request.
    """

    plan: BenchmarkPlan
    entries: tuple[PlannedEntry, ...]
    every: float
    request: SpeedrunRequest

    @property
    def by_steps(self) -> bool:
        """Whether the budget is in steps."""
        return "steps" in self.plan.budget


def make_plan(request: SpeedrunRequest) -> SpeedrunPlan:
    """Resolve and check a request.

    Args:
        request: The request.

    Returns:
        The plan.

    Raises:
        UserError: Something in the request is unknown, missing or contradictory.
    """
    _refuse_fixed(request.sets)
    if request.record is not None:
        check_records(request.record)
    name = request.benchmark or first_with_marks()
    benchmark = with_samples(find_benchmark(name, request.protocol), request.samples)
    _refuse_own_data(name)
    budget = budget_of(benchmark, request.minutes, request.steps)
    folder = data_folder(benchmark, request.data_dir)
    benchmark = filled_in(benchmark, BenchmarkRequest(name), folder)
    own = {**budget, "data": training_data(benchmark, None, None, folder)}
    out = request.out or default_out(name)
    entries = tuple(
        _entry(model, request, benchmark, own, out)
        for model in choose_models(benchmark, request.models, {})
    )
    plan = BenchmarkPlan(
        benchmark, tuple(entry.run for entry in entries), budget, out,
        str(folder) if folder else None, own["data"],
    )  # fmt: skip
    return SpeedrunPlan(plan, entries, _every(request, budget), request)


def _entry(
    model: str, request: SpeedrunRequest, benchmark: Benchmark, own: Mapping[str, Any], out: Path
) -> PlannedEntry:
    run = planned_training(model, request.seed, benchmark, request.preset, own, out, request.sets)
    plain = planned_training(model, request.seed, benchmark, run.config.preset, own, out)
    differing = differences(plain.config.dump(), run.config.dump())
    changed = {name: str(value) for name, _, value in differing}
    targets = tuple(request.targets) or benchmark.marks_of(registry().models[model].family)
    if not targets:
        raise UserError(
            f"benchmark '{benchmark.name}' has no mark for '{model}': give the score to reach "
            "with --target"
        )
    return PlannedEntry(run, targets, changed)


def _refuse_fixed(sets: Sequence[str]) -> None:
    """Raise UserError if a setting is not the model's to choose."""
    for name in parse_sets(sets):
        if name in FIXED:
            raise UserError(f"--set {name}: {FIXED[name]}")


def default_out(benchmark: str | None) -> Path:
    """Return the folder of speed runs for which none is named.

    Args:
        benchmark: Name of the benchmark. None: the first that declares marks.

    Returns:
        runs/speedrun-NAME.

    Raises:
        UserError: None is named, and none declares marks.
    """
    return RUNS / f"speedrun-{benchmark or first_with_marks()}"


def first_with_marks() -> str:
    """Find the first benchmark that declares marks.

    Returns:
        Its name.

    Raises:
        UserError: There is none.
    """
    for spec in registry().benchmarks:
        if find_benchmark(spec.name, None).marks:
            return spec.name
    raise UserError(
        "no installed benchmark has marks: name one with --benchmark, and give the score to reach "
        "with --target"
    )


def _refuse_own_data(name: str) -> None:
    """Raise UserError for a benchmark of the user's own images, whose scores nobody can repeat."""
    if registry().benchmarks[name].any_data:
        raise UserError(
            f"benchmark '{name}' has no fixed captions, so no fixed mark; name another --benchmark"
        )


def _every(request: SpeedrunRequest, budget: Mapping[str, Any]) -> float:
    """Return how much training lies between two scores, in seconds or whole steps."""
    ((unit, value),) = budget.items()
    value = float(value)
    if request.every is not None and unit == "steps" and request.every != int(request.every):
        raise UserError(f"--every {request.every:g}: with --steps it is a whole number of steps")
    if request.every is not None:
        return request.every
    return math.ceil(value / SCORES) if unit == "steps" else value * 60 / SCORES
