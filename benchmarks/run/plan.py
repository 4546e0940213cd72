"""What a benchmark command will do, all of it checked before anything is trained."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from t2i.benchmarks.benchmark_request import BenchmarkRequest
from t2i.core.errors import UserError, nearest
from t2i.core.fetch.downloads import fetched
from t2i.core.interfaces.scoring import Benchmark
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, resolve_config
from t2i.core.runs.folder import Run


@dataclass(frozen=True)
class PlannedRun:
    """A row of the results: a model to train, or a run that is given."""

    name: str
    label: str
    seed: int
    config: RunConfig
    run: Run
    given: bool


@dataclass(frozen=True)
class BenchmarkPlan:
    """A benchmark, its rows and where everything goes."""

    benchmark: Benchmark
    runs: tuple[PlannedRun, ...]
    budget: Mapping[str, Any]
    out: Path
    data_dir: str | None
    keep_images: bool = False


def find_benchmark(name: str, protocol: str | None) -> Benchmark:
    """The benchmark of that name under a protocol (default: its first). UserError naming the nearest."""
    spec = registry().benchmarks[name]
    wanted = protocol or spec.protocols[0]
    if wanted not in spec.protocols:
        hint = nearest(wanted, spec.protocols)
        raise UserError(f"benchmark '{name}' has no protocol '{wanted}'{hint}")
    choice = registry().benchmarks.choose(name, {}, "benchmark")
    benchmark: Benchmark = import_object(spec.build)(choice.config, wanted)
    return benchmark


def with_samples(benchmark: Benchmark, samples: int | None) -> Benchmark:
    """The benchmark with `samples` captions in its headline set and at most so many in the others."""
    if samples is None:
        return benchmark
    if samples < 2:
        raise UserError(f"--samples {samples}: scores need at least 2 images")
    sets = [
        replace(p, count=samples if p.headline else min(samples, p.count))
        for p in benchmark.prompts
    ]
    return replace(benchmark, prompts=sets)


def named_models(models: Sequence[str] | str) -> list[str]:
    """A model's name or several; "all" stands for every registered one that draws images. UserError for others."""
    asked = [models] if isinstance(models, str) else models
    known = [spec.name for spec in registry().models if registry().draws(spec.family)]
    for spec in (registry().models[name] for name in asked if name in registry().models):
        if spec.name not in known:
            raise UserError(
                f"model '{spec.name}' is a {spec.family}: it draws no images, there is nothing to compare"
            )
    return [name for entry in asked for name in (known if entry == "all" else [entry])]


def choose_models(
    benchmark: Benchmark, models: Sequence[str] | str | None, runs: Mapping[str, Path]
) -> list[str]:
    """Names of the rows: those asked for ("all": every registered model), else those of the runs that are given,
    else the first default of the benchmark whose models are all registered."""
    if models is not None:
        names = named_models(models)
    elif runs:
        names = []
    else:
        names = next(
            (
                list(group)
                for group in benchmark.default_models
                if set(group) <= set(named_models("all"))
            ),
            [],
        )
    names = list(dict.fromkeys([*names, *runs]))
    if not names:
        groups = ", or ".join(" and ".join(group) for group in benchmark.default_models)
        raise UserError(
            f"benchmark '{benchmark.name}': its models are not installed ({groups}); name some by --models"
        )
    return names


def budget_of(benchmark: Benchmark, minutes: float | None, steps: int | None) -> dict[str, Any]:
    if minutes is not None and steps is not None:
        raise UserError("--minutes and --steps are two ways to say the budget: give one of them")
    return (
        {"steps": steps}
        if steps is not None
        else {"minutes": benchmark.minutes if minutes is None else minutes}
    )


def plan_runs(
    request: BenchmarkRequest,
    benchmark: Benchmark,
    budget: Mapping[str, Any],
    data: Mapping[str, Any],
    out: Path,
) -> tuple[PlannedRun, ...]:
    """The rows of models, trained for images of the benchmark's size.

    Args:
        request: What is asked for.
        benchmark: The benchmark that it names.
        budget: The training budget, as the settings of a model.
        data: The training data, as the section `data` of a model's settings.
        out: Folder that holds the runs.

    Raises:
        UserError: A model is unknown, or a given run has no model or another one.
    """
    if request.seeds < 1:
        raise UserError(f"--seeds {request.seeds}: at least 1")
    planned = []
    for name in choose_models(benchmark, request.models, request.runs):
        if name in request.runs:
            planned.append(_given(name, Run(Path(request.runs[name]))))
            continue
        for seed in range(request.seeds):
            label = name if seed == 0 else f"{name}-seed{seed}"
            own = {
                "minutes": None,
                **budget,
                "seed": seed,
                "data": data,
                "image_size": benchmark.image_size,
            }
            config = resolve_config(
                name, preset=request.preset or _preset(benchmark, name), overrides=own
            )
            planned.append(
                PlannedRun(name, label, seed, config, Run(out / "runs" / label), given=False)
            )
    return tuple(planned)


def _preset(benchmark: Benchmark, model: str) -> str:
    """The first of the benchmark's presets that a model has; its first of all where it has none of them."""
    own = registry().models[model].presets
    return next((preset for preset in benchmark.presets if preset in own), own[0])


def _given(name: str, run: Run) -> PlannedRun:
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(
            f"--run {name}={run.path}: '{name}' is no name for a row (letters, digits, '-', '_', '.')"
        )
    if not run.model.is_dir():
        raise UserError(
            f"--run {name}={run.path}: there is no trained model in it; 't2i train --out DIR' makes one"
        )
    config = run.config()
    if name in {spec.name for spec in registry().models} and config.model != name:
        raise UserError(
            f"--run {name}={run.path}: that is a run of '{config.model}'; write --run {config.model}=..."
        )
    return PlannedRun(name, name, config.settings.seed, config, run, given=True)


def data_folder(benchmark: Benchmark, data_dir: Path | None) -> Path | None:
    """Where the benchmark's data set is: as said, or where `t2i fetch` has put it. None: it needs no folder."""
    if data_dir is not None or not registry().datasets[benchmark.dataset].needs_dir:
        return data_dir
    needs = f"benchmark '{benchmark.name}' needs the data set '{benchmark.dataset}'"
    if not benchmark.fetch:
        raise UserError(f"{needs}: say where it is with --data-dir")
    try:
        return fetched(benchmark.fetch)
    except UserError:
        raise UserError(
            f"{needs}: 't2i fetch {benchmark.fetch}' gets it, or say where it is with --data-dir"
        ) from None


def training_data(
    benchmark: Benchmark, train_data: str | None, train_dir: Path | None, data_dir: Path | None
) -> dict[str, Any]:
    """The `data` section of every model's configuration: the benchmark's own training data, or another set."""
    if train_data is None or train_data == benchmark.dataset:
        own = {"name": benchmark.dataset, **benchmark.data, **benchmark.train}
        folder = train_dir or data_dir
    else:
        own, folder = {"name": train_data}, train_dir
        if registry().datasets[train_data].needs_dir and train_dir is None:
            raise UserError(f"--train-data {train_data}: say where it is with --train-dir")
    return own if folder is None else {**own, "dir": str(folder)}


def make_plan(request: BenchmarkRequest) -> BenchmarkPlan:
    """Resolves and checks everything that is asked for. UserError for anything unknown, missing or contradictory."""
    benchmark = with_samples(find_benchmark(request.name, request.protocol), request.samples)
    out = request.out or _default_out(benchmark)
    budget = budget_of(benchmark, request.minutes, request.steps)
    folder = data_folder(benchmark, request.data_dir)
    data = training_data(benchmark, request.train_data, request.train_dir, folder)
    runs = plan_runs(request, benchmark, budget, data, out)
    return BenchmarkPlan(
        benchmark, runs, budget, out, str(folder) if folder else None, request.keep_images
    )


def _default_out(benchmark: Benchmark) -> Path:
    """runs/bench-NAME, with the protocol's name behind it unless it is the first."""
    default = registry().benchmarks[benchmark.name].protocols[0]
    suffix = "" if benchmark.protocol == default else f"-{benchmark.protocol}"
    return Path("runs") / f"bench-{benchmark.name}{suffix}"
