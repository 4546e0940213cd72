"""Benchmarks of the user's own images: what they leave open is filled in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from t2i.benchmarks.benchmark_request import BenchmarkRequest
from t2i.core.errors import UserError
from t2i.core.interfaces.dataset import Dataset
from t2i.core.interfaces.scoring import Benchmark, PromptSet
from t2i.core.io.terminal import note
from t2i.core.models.loading import find
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry
from t2i.core.runs.automatic import shorter_sides
from t2i.core.runs.configure import open_dataset
from t2i.core.runs.recognising import recognised

SIZES = (32, 64)
"""Image sizes that are chosen, in pixels: both are trained in minutes on a laptop."""

LOOKED_AT = 50  # images whose size decides
LEAST = 2  # captions, and real images, that scores need
SHARES = (0.3, 0.5, 0.7)  # of the images for validation, that are tried for an error's advice


def with_data(benchmark: Benchmark, request: BenchmarkRequest) -> Benchmark:
    """Put the user's data set into a benchmark.

    Args:
        benchmark: The benchmark.
        request: The request. `data`, `data_settings` and `image_size` are used.

    Returns:
        The benchmark of that data set. If a folder is given and no data set, the folder decides.

    Raises:
        UserError: The benchmark has a data set of its own, there is none of that name, or none
            recognises the folder.
    """
    own = registry().benchmarks[benchmark.name].any_data
    given = {
        "--data": request.data,
        "--image-size": request.image_size,
        "--set": request.data_settings or None,
    }
    if not own and (wrong := [option for option, value in given.items() if value is not None]):
        raise UserError(
            f"benchmark '{benchmark.name}' fixes its data and image size: leave out {wrong[0]}"
            f"{own_images_hint()}"
        )
    if not own:
        return benchmark
    name = request.data or _recognised(request.data_dir) or benchmark.dataset
    settings = benchmark.data if name == benchmark.dataset else {}
    return replace(
        benchmark,
        dataset=registry().datasets[name].name,
        data={**settings, **request.data_settings},
        image_size=request.image_size or benchmark.image_size,
        fetch=name if name in registry().downloads else "",
    )


def _recognised(folder: Path | None) -> str | None:
    """Return the data set that reads a folder, with a line that names it; None without a folder."""
    if folder is None or not folder.expanduser().exists():
        return None
    found = recognised(folder)
    note(f"data set: {found.name}, for {found.why} in {folder}")
    return found.name


def own_images_hint(data: str = "", folder: str = "DIR") -> str:
    """Name the command that compares models on one's own images, to be appended to an error.

    Args:
        data: Name of the data set. "": the benchmark's.
        folder: The folder, for the command.

    Returns:
        The hint; empty if there is no such benchmark.
    """
    found = next((spec.name for spec in registry().benchmarks if spec.any_data), None)
    if found is None:
        return ""
    option = f" --data {data}" if data else ""
    return f"; your own images are compared by 't2i bench {found}{option} --data-dir {folder}'"


def filled_in(benchmark: Benchmark, request: BenchmarkRequest, folder: Path | None) -> Benchmark:
    """Choose what a benchmark leaves open: the image size, and how many captions there are.

    Args:
        benchmark: The benchmark, with its data set.
        request: The request, whose runs may decide the image size.
        folder: Folder of the data set. None: it needs none.

    Returns:
        The benchmark with all numbers.

    Raises:
        UserError: The data set cannot be opened, or has too few images.
    """
    if not benchmark.image_size:
        size = _size_of_runs(request) or _size_of_images(benchmark, folder)
        benchmark = replace(benchmark, image_size=size)
    if all(prompts.count for prompts in benchmark.prompts):
        return benchmark
    counts = [_count(benchmark, prompts, folder) for prompts in benchmark.prompts]
    sets = [replace(p, count=c) for p, c in zip(benchmark.prompts, counts, strict=True)]
    main = next(prompts for prompts in sets if prompts.headline)
    if main.count < LEAST:
        raise UserError(
            f"benchmark '{benchmark.name}': {main.count} image in split '{main.split}', where "
            f"scores need {LEAST}: give more images{_larger_share(benchmark, main, folder)}"
        )
    kept = [p for p in sets if p.headline or (p.count and (not p.few or main.count < p.few))]
    return replace(benchmark, prompts=kept)


def _larger_share(benchmark: Benchmark, prompts: PromptSet, folder: Path | None) -> str:
    """Name the setting that puts enough images into the split, if there is one that does."""
    fields = import_object(registry().datasets[benchmark.dataset].config).model_fields
    for share in SHARES if "val_share" in fields else ():
        tried = replace(benchmark, data={**benchmark.data, "val_share": share})
        try:
            count = len(_opened(tried, prompts.split, folder, benchmark.image_size))
        except UserError:  # the other split would be empty
            break
        if count >= LEAST:
            return f", or put more of them aside with --set data.val_share={share}"
    return ""


def _count(benchmark: Benchmark, prompts: PromptSet, folder: Path | None) -> int:
    """Return the number of captions of a set: as many as there are examples, if it is left open."""
    if prompts.count:
        return prompts.count
    return min(prompts.most, len(_opened(benchmark, prompts.split, folder, benchmark.image_size)))


def _opened(benchmark: Benchmark, split: str, folder: Path | None, size: int) -> Dataset:
    spec = registry().datasets[benchmark.dataset]
    if split not in spec.splits:
        raise UserError(
            f"benchmark '{benchmark.name}' needs the split '{split}', but data set '{spec.name}' "
            f"has {', '.join(spec.splits)}; name another --data"
        )
    place: dict[str, Any] = {} if folder is None else {"dir": str(folder)}
    settings = {**benchmark.data, **place, "image_size": size}
    return open_dataset(registry().datasets.choose(spec.name, settings, "data set"), split)


def _size_of_runs(request: BenchmarkRequest) -> int | None:
    """Return the largest image size of the given runs, if nothing else is compared."""
    if request.models is not None or not request.runs:
        return None
    try:
        places = [find(text) for text in request.runs.values()]
        return max((p.run.config().settings.image_size for p in places if p.run), default=None)
    except UserError:  # reported when the runs are planned
        return None


def _size_of_images(benchmark: Benchmark, folder: Path | None) -> int:
    """Return the largest of SIZES that most images reach, so that they are not enlarged."""
    data = _opened(benchmark, benchmark.headline_set.split, folder, SIZES[0])
    sides = shorter_sides(data, LOOKED_AT)
    usual = median(sides) if sides else SIZES[-1]
    return max((size for size in SIZES if size <= usual), default=SIZES[0])
