"""The plan of a benchmark: the request resolved and checked before anything is trained."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from t2i.benchmarks.benchmark_request import BenchmarkRequest
from t2i.benchmarks.run.chosen_benchmark import find_benchmark, with_likelihood, with_samples
from t2i.benchmarks.run.own_data import filled_in, own_images_hint, with_data
from t2i.benchmarks.run.row_names import check_names, is_name
from t2i.benchmarks.run.side_by_side import jobs_at_once
from t2i.core.devices import best_device
from t2i.core.errors import UserError
from t2i.core.fetch.downloads import fetched
from t2i.core.interfaces.scoring import Benchmark
from t2i.core.io import launched
from t2i.core.io.terminal import note
from t2i.core.models.enlarging import enlarges
from t2i.core.models.loading import config_of, find
from t2i.core.models.locating import Located
from t2i.core.registry.tables import registry
from t2i.core.runs.configure import RunConfig, resolve_config
from t2i.core.runs.folder import Run
from t2i.core.runs.recognising import refuse_folder

TRAINING = ("--train-data", "--train-dir")
"""The options that name the training data and its folder."""


@dataclass(frozen=True)
class PlannedRun:
    """A row of the results: a model to train, or a finished run that is given.

    Args:
        name: The model's registered name, or the name under which a run is given.
        label: Name of the row: `name`, with "-seedK" for seeds other than 0.
        seed: The training seed.
        config: The configuration that the model is or was trained with.
        run: The run's folder.
        given: Whether the run is given, so that it is not trained.
        place: Where the weights of a given run are: its model, a checkpoint, another project's
            folder. None: in `run`.
    """

    name: str
    label: str
    seed: int
    config: RunConfig
    run: Run
    given: bool
    place: Located | None = None


@dataclass(frozen=True)
class BenchmarkPlan:
    """A benchmark, its rows and its folders.

    Args:
        benchmark: The benchmark, with the requested number of captions.
        runs: The rows of models.
        budget: Training budget: {"minutes": M} or {"steps": N}.
        out: Folder for all output.
        data_dir: Folder of the benchmark's data set. None: it needs none.
        data: The training data, as the section `data` of a model's settings.
        keep_images: Whether all scored images of models are written as PNG files.
        jobs: Number of trainings that run at once. A budget in minutes counts as if each had the
            machine to itself: at once, each trains for `jobs` times as long.
    """

    benchmark: Benchmark
    runs: tuple[PlannedRun, ...]
    budget: Mapping[str, Any]
    out: Path
    data_dir: str | None
    data: Mapping[str, Any]
    keep_images: bool = False
    jobs: int = 1

    def told(self) -> str:
        """Say what is going to happen.

        Returns:
            One line: the models, how many of them are to be trained, and for how long.
        """
        new = [entry for entry in self.runs if not entry.given and not entry.run.complete]
        told = f"plan: {', '.join(entry.label for entry in self.runs)}; to train: {len(new)}"
        if not new:
            return told
        ((unit, budget),) = self.budget.items()
        together = f", {self.jobs} at once" if self.jobs > 1 else ""
        if unit == "steps":
            return f"{told}{together}, {budget} steps each"
        each, turns = budget * self.jobs, math.ceil(len(new) / self.jobs)
        return f"{told}{together}, {_duration(each)} each, {_duration(each * turns)} in all"

    def turns(self) -> Iterator[Sequence[PlannedRun]]:
        """Divide the rows into those whose trainings run at once.

        Yields:
            The rows of a turn, in order; given ones are in turns of their own.
        """
        for given, rows in groupby(self.runs, key=lambda entry: entry.given):
            together, count = list(rows), 1 if given else self.jobs
            yield from (together[at : at + count] for at in range(0, len(together), count))


def _duration(minutes: float) -> str:
    """Write a number of minutes as minutes, hours or days."""
    if minutes < 120:
        return "1 minute" if minutes == 1 else f"{minutes:g} minutes"
    return f"{minutes / 60:.3g} hours" if minutes < 2880 else f"{minutes / 1440:.3g} days"


def named_models(models: Sequence[str] | str, upsamplers: bool = True) -> list[str]:
    """Expand "all" in names of models, and check that the others can be sampled.

    Args:
        models: A name, or several. "all" stands for every registered model that makes images. Names
            that are not registered are passed on.
        upsamplers: Whether "all" includes the models that enlarge the images of others.

    Returns:
        The names, in the order given.

    Raises:
        UserError: One of the models makes no images (a guide).
    """
    asked = [models] if isinstance(models, str) else models
    known = [spec.name for spec in registry().models if registry().draws(spec.family)]
    for spec in (registry().models[name] for name in asked if name in registry().models):
        if spec.name not in known:
            raise UserError(
                f"model '{spec.name}' is a {spec.family}: it draws no images, "
                "there is nothing to compare"
            )
    if "all" in asked and not upsamplers:
        known = [name for name in known if not enlarges(registry().models[name])]
    return [name for entry in asked for name in (known if entry == "all" else [entry])]


def choose_models(
    benchmark: Benchmark, models: Sequence[str] | str | None, runs: Mapping[str, str | Path]
) -> list[str]:
    """Choose the models of the rows.

    Args:
        benchmark: The benchmark.
        models: Names of models, or "all", which leaves out upsamplers. None: the models of `runs`;
            without `runs`, the benchmark's first group of default models that are all registered.
        runs: Finished runs by the name of their row.

    Returns:
        The names: the models, then those of `runs`, each once.

    Raises:
        UserError: There are none, or one of the models makes no images.
    """
    if models is not None:
        names = named_models(models, upsamplers=False)
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
    if not names and not benchmark.default_models:
        raise UserError(
            f"benchmark '{benchmark.name}' trains no models: name finished ones by --run NAME=RUN"
        )
    if not names:
        groups = ", or ".join(" and ".join(group) for group in benchmark.default_models)
        raise UserError(
            f"benchmark '{benchmark.name}': its models are not installed ({groups}); "
            "name some by --models"
        )
    return names


def budget_of(benchmark: Benchmark, minutes: float | None, steps: int | None) -> dict[str, Any]:
    """Choose the training budget.

    Args:
        benchmark: The benchmark, which has a budget in minutes.
        minutes: The budget in minutes. None: not given.
        steps: The budget in steps. None: not given.

    Returns:
        {"steps": N} or {"minutes": M}, as settings of a model; the benchmark's minutes if neither
        is given.

    Raises:
        UserError: Both are given.
    """
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
    """Plan the rows of models, which are trained on images of the benchmark's size.

    Args:
        request: The request.
        benchmark: The benchmark that it names.
        budget: The training budget, as settings of a model.
        data: The training data, as the section `data` of a model's settings.
        out: The benchmark's folder. The runs are in runs/ there.

    Returns:
        A run for each model and seed; given runs are planned once.

    Raises:
        UserError: A model is unknown, its settings are invalid, or a given run has no trained model
            or one of another name.
    """
    planned, own = [], {**budget, "data": data}
    for name in choose_models(benchmark, request.models, request.runs):
        if name in request.runs:
            planned.append(_given(name, str(request.runs[name])))
            continue
        if not registry().datasets[data["name"]].images:
            raise UserError(
                f"benchmark '{benchmark.name}' has prompts and no images to train '{name}' on: "
                f"name a finished run by --run {name}=RUN, or images by --train-data and "
                "--train-dir"
            )
        for seed in range(request.seeds):
            planned.append(planned_training(name, seed, benchmark, request.preset, own, out))
    check_names([entry.label for entry in planned])
    return tuple(planned)


def planned_training(
    name: str,
    seed: int,
    benchmark: Benchmark,
    preset: str | None,
    own: Mapping[str, Any],
    out: Path,
    sets: Sequence[str] = (),
) -> PlannedRun:
    """Plan the training of a model on images of the benchmark's size.

    Args:
        name: Registered name of the model.
        seed: The training seed.
        benchmark: The benchmark.
        preset: The model's preset. None: the first of the benchmark's that it has, else its first.
        own: Budget and training data, as settings of the model.
        out: The benchmark's folder. The run is in runs/ there.
        sets: More settings, "K=V".

    Returns:
        The planned run.

    Raises:
        UserError: The model or a setting is unknown, or a value is wrong.
    """
    label = name if seed == 0 else f"{name}-seed{seed}"
    fixed = {"minutes": None, **own, "seed": seed, "image_size": benchmark.image_size}
    config = resolve_config(
        name, preset=preset or _preset(benchmark, name), overrides=fixed, sets=sets
    )
    return PlannedRun(name, label, seed, config, Run(out / "runs" / label), given=False)


def _preset(benchmark: Benchmark, model: str) -> str:
    """Return the first of the benchmark's presets that a model has, else the model's first."""
    own = registry().models[model].presets
    return next((preset for preset in benchmark.presets if preset in own), own[0])


def _given(name: str, text: str) -> PlannedRun:
    """Check a model that the user names, and plan its row."""
    if not is_name(name):
        raise UserError(
            f"--run {name}={text}: '{name}' is no name for a row (letters, digits, '-', '_', '.'; "
            "at most 80)"
        )
    try:
        place = find(text)
        config = config_of(place)
    except UserError as error:
        raise UserError(f"--run {name}={text}: {error}") from None
    if place.note:
        note(place.note)
    if name in {spec.name for spec in registry().models} and config.model != name:
        raise UserError(
            f"--run {name}={text}: that is a run of '{config.model}'; "
            f"write --run {config.model}=..."
        )
    run, seed = Run(place.path), config.settings.seed
    return PlannedRun(name, name, seed, config, run, given=True, place=replace(place, note=""))


def data_folder(benchmark: Benchmark, data_dir: Path | None) -> Path | None:
    """Find the folder of the benchmark's data set.

    Args:
        benchmark: The benchmark.
        data_dir: The folder that the user names. None: where `t2i fetch` put the data set.

    Returns:
        The folder; None if the data set needs none.

    Raises:
        UserError: The data set needs a folder, none is named, and it has not been fetched; or one
            is named, and it reads none.
    """
    spec = registry().datasets[benchmark.dataset]
    if data_dir is not None and not spec.takes_dir:
        raise UserError(
            f"benchmark '{benchmark.name}': data set '{spec.name}' reads no folder; leave out "
            f"--data-dir{own_images_hint(folder=str(data_dir))}"
        )
    if data_dir is not None or not spec.needs_dir:
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
    """Choose the training data.

    Args:
        benchmark: The benchmark.
        train_data: Name of a data set. None: the benchmark's.
        train_dir: Folder of the training data. None: `data_dir`, if the benchmark's data set is
            trained on.
        data_dir: Folder of the benchmark's data set. None: it needs none.

    Returns:
        The section `data` of every model's settings.

    Raises:
        UserError: The data set needs a folder, and none is named; or one is named, and it reads
            none.
    """
    if train_dir is not None:
        refuse_folder(train_data or benchmark.dataset, train_dir, TRAINING)
        if not train_dir.expanduser().is_dir():
            raise UserError(f"--train-dir {train_dir}: no such folder")
    if train_data is None or train_data == benchmark.dataset:
        own = {"name": benchmark.dataset, **benchmark.data, **benchmark.train}
        folder = train_dir or data_dir
    else:
        own, folder = {"name": registry().datasets[train_data].name}, train_dir
        if registry().datasets[train_data].needs_dir and train_dir is None:
            raise UserError(f"--train-data {train_data}: say where it is with --train-dir")
    if folder is not None and not registry().datasets[own["name"]].takes_dir:
        raise UserError(
            f"--train-dir {folder}: data set '{own['name']}' reads no folder; name another with "
            "--train-data, or leave out --train-dir"
        )
    return own if folder is None else {**own, "dir": str(folder)}


def make_plan(request: BenchmarkRequest) -> BenchmarkPlan:
    """Resolve and check a request.

    Args:
        request: The request.

    Returns:
        The plan.

    Raises:
        UserError: Something in the request is unknown, missing or contradictory.
    """
    benchmark = with_samples(find_benchmark(request.name, request.protocol), request.samples)
    benchmark = with_likelihood(with_data(benchmark, request), request.likelihood)
    budget = budget_of(benchmark, request.minutes, request.steps)
    jobs = _jobs(request, choose_models(benchmark, request.models, request.runs))
    folder = data_folder(benchmark, request.data_dir)
    benchmark = filled_in(benchmark, request, folder)
    out = request.out or _default_out(benchmark, folder)
    data = training_data(benchmark, request.train_data, request.train_dir, folder)
    own = {unit: value * jobs if unit == "minutes" else value for unit, value in budget.items()}
    runs = plan_runs(request, benchmark, own, data, out)
    return BenchmarkPlan(
        benchmark, runs, budget, out, str(folder) if folder else None, data, request.keep_images,
        jobs,
    )  # fmt: skip


def _jobs(request: BenchmarkRequest, models: Sequence[str]) -> int:
    """Return how many of the trainings of a request run at once, after a check of both numbers."""
    if request.seeds < 1:
        raise UserError(f"--seeds {request.seeds}: at least 1")
    trainings = request.seeds * sum(name not in request.runs for name in models)
    several = launched.several()  # torchrun's processes share a training
    if request.jobs is None:
        gpu = best_device().type != "cpu"
        return 1 if several else jobs_at_once(trainings, torch.get_num_threads(), gpu=gpu)
    if request.jobs < 1:
        raise UserError(f"--jobs {request.jobs}: at least 1")
    if several and request.jobs > 1:
        raise UserError(f"--jobs {request.jobs}: the processes of torchrun share each training")
    return max(1, min(request.jobs, trainings))


def _default_out(benchmark: Benchmark, folder: Path | None) -> Path:
    """Return runs/bench-NAME, with the protocol behind if it is not the first.

    Of the user's own images, the name of their folder follows.
    """
    spec = registry().benchmarks[benchmark.name]
    suffix = "" if benchmark.protocol == spec.protocols[0] else f"-{benchmark.protocol}"
    if spec.any_data and folder is not None:
        suffix += f"-{re.sub(r'[^A-Za-z0-9_.-]+', '-', folder.resolve().name)}"
    return Path("runs") / f"bench-{benchmark.name}{suffix}"
