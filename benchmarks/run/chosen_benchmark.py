"""The benchmark of a request: the registered one, with the numbers that the request changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from t2i.benchmarks.run.own_data import own_images_hint
from t2i.core.errors import UserError, nearest
from t2i.core.interfaces.scoring import Benchmark, Measure
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry

LIKELIHOOD = "bits-per-dim"
"""The metric of `--likelihood`."""


def find_benchmark(name: str, protocol: str | None) -> Benchmark:
    """Find a registered benchmark.

    Args:
        name: Name of the benchmark.
        protocol: One of its protocols. None: its first.

    Returns:
        The benchmark under that protocol.

    Raises:
        UserError: There is no such benchmark or protocol. The message names the nearest one.
    """
    if name not in registry().benchmarks:
        raise UserError(_no_benchmark(name))
    spec = registry().benchmarks[name]
    wanted = protocol or spec.protocols[0]
    if wanted not in spec.protocols:
        hint = nearest(wanted, spec.protocols)
        raise UserError(f"benchmark '{name}' has no protocol '{wanted}'{hint}")
    choice = registry().benchmarks.choose(name, {}, "benchmark")
    benchmark: Benchmark = import_object(spec.build)(choice.config, wanted)
    return benchmark


def _no_benchmark(name: str) -> str:
    """Say that there is no such benchmark, and how a data set or a folder can be compared."""
    none = f"no benchmark is named '{name}'"
    if name in registry().datasets:
        return none + own_images_hint(data=name)
    if Path(name).is_dir():
        return none + own_images_hint(folder=name)
    return none + nearest(name, (spec.name for spec in registry().benchmarks))


def with_samples(benchmark: Benchmark, samples: int | None) -> Benchmark:
    """Change the number of captions of a benchmark.

    Args:
        benchmark: The benchmark.
        samples: Captions in the headline set, and the most in each other set; at least 2. None: no
            change.

    Returns:
        The benchmark with that number. It is a trial, for which a part of the data is enough.

    Raises:
        UserError: `samples` is below 2.
    """
    if samples is None:
        return benchmark
    if samples < 2:
        raise UserError(f"--samples {samples}: scores need at least 2 images")
    sets = [
        replace(
            p,
            count=samples if p.headline and p.count else min(samples, p.count),
            most=min(samples, p.most),
        )
        for p in benchmark.prompts
    ]
    return replace(benchmark, prompts=sets, whole=0)


def with_likelihood(benchmark: Benchmark, images: int | None) -> Benchmark:
    """Add the likelihood of real images to the measures of a benchmark.

    Args:
        benchmark: The benchmark.
        images: Number of real images, at least 2. None: no change.

    Returns:
        The benchmark, which measures it once.

    Raises:
        UserError: `images` is below 2.
    """
    if images is None:
        return benchmark
    if images < 2:
        raise UserError(f"--likelihood {images}: an interval needs at least 2 images")
    others = [measure for measure in benchmark.measures if measure.metric != LIKELIHOOD]
    own = Measure(LIKELIHOOD, {"images": images}, shown={"bits_per_dim": "bits/dim"})
    return replace(benchmark, measures=(*others, own))
