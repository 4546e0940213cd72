"""Quality against steps: one trained model, sampled by every sampler that fits it, and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from t2i.benchmarks.benchmark_request import BenchmarkRequest
from t2i.benchmarks.report.plots import sampler_curves
from t2i.benchmarks.report.table import number, plain
from t2i.benchmarks.results import Column
from t2i.benchmarks.run.caption_sets import CaptionSet, caption_set, reference_of
from t2i.benchmarks.run.chosen_benchmark import find_benchmark, with_samples
from t2i.benchmarks.run.own_data import filled_in
from t2i.benchmarks.run.plan import data_folder
from t2i.benchmarks.run.reporter import BenchmarkLines, BenchmarkReporter
from t2i.benchmarks.run.timed_sampling import Clock, timed
from t2i.benchmarks.run.training_record import environment
from t2i.benchmarks.score.available_measures import with_what_is_there
from t2i.benchmarks.score.extraction import fingerprint, reference_features
from t2i.benchmarks.score.scorer import Scorer, build_metric
from t2i.core.devices import best_device
from t2i.core.errors import UserError
from t2i.core.interfaces.sampler import SamplerConfig
from t2i.core.interfaces.scoring import Benchmark
from t2i.core.io.files import write_bytes
from t2i.core.io.folders import refuse_links
from t2i.core.io.json_files import write_json
from t2i.core.io.locks import folder_lock, take_folder
from t2i.core.models.loading import find, load
from t2i.core.models.locating import Located
from t2i.core.models.model import Model
from t2i.core.registry.choice import Choice
from t2i.core.runs.configure import fitting_samplers
from t2i.core.runs.folder import RUNS

STEPS = (5, 10, 25, 50)


@dataclass
class Point:
    """The scores of one sampler with one number of steps.

    Args:
        sampler: Name of the sampler.
        steps: Number of sampling steps.
        settings: Settings of the sampler.
        scores: Scores on the headline set: measure -> score -> value.
        intervals: 95 % confidence intervals (low, high), by measure and score.
        seconds: Seconds that an image takes.
    """

    sampler: str
    steps: int
    settings: Mapping[str, Any]
    scores: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Mapping[str, tuple[float, float]]]
    seconds: float


@dataclass
class SamplerResults:
    """The results of `compare_samplers`. All points have the same captions and the same noise.

    Args:
        benchmark: Name of the benchmark.
        run: Folder of the run.
        headline: The column of the headline score.
        columns: The columns of the headline set.
        protocol: Everything that the scores depend on, besides the model and the sampler.
        points: The scores of each sampler with each number of steps.
        out: Folder that holds the files.
        environment: Versions of libraries, system and device.
    """

    benchmark: str
    run: str
    headline: Column
    columns: list[Column]
    protocol: Mapping[str, Any]
    points: list[Point]
    out: Path
    environment: dict[str, Any] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Convert the results to JSON.

        Returns:
            All fields, and the number of the format.
        """
        return {"format": 1, **asdict(self), "out": str(self.out)}

    def curves(self) -> dict[str, dict[int, float]]:
        """Select the headline score.

        Returns:
            Sampler -> number of steps -> score.
        """
        found: dict[str, dict[int, float]] = {}
        for point in self.points:
            found.setdefault(point.sampler, {})[point.steps] = point.scores[self.headline.measure][
                self.headline.score
            ]
        return found

    def show(self, console: Console | None = None) -> None:
        """Print the headline score: a line for each sampler, a column for each number of steps.

        Args:
            console: Where to print. None: stdout.
        """
        steps = sorted({point.steps for point in self.points})
        table = Table(plain(f"{self.headline.title} after ... steps").plain)
        for count in steps:
            table.add_column(str(count), justify="right")
        for name, own in self.curves().items():
            table.add_row(
                plain(name), *(number(own[count]) if count in own else "" for count in steps)
            )
        (console or Console()).print(table)


def compare_samplers(
    name: str, run: str | Path, *, protocol: str | None = None,
    samplers: Sequence[str] | None = None, steps: Sequence[int] = STEPS,
    samples: int | None = None, out: Path | None = None,
    data_dir: Path | None = None, reporter: BenchmarkReporter | None = None,
) -> SamplerResults:  # fmt: skip
    """Sample the headline captions of a benchmark by each sampler, and score the images.

    The results are written to samplers.json and samplers.svg in `out`.

    Args:
        name: Name of the benchmark.
        run: The trained model: whatever `load` takes.
        protocol: One of the benchmark's protocols. None: its first.
        samplers: Names of samplers. None: all that fit the model and the numbers of steps.
        steps: Numbers of steps.
        samples: Number of captions, at least 2. None: the benchmark's.
        out: Folder for the results. None: bench-samplers in the run; without a run,
            runs/bench-samplers.
        data_dir: Folder of the benchmark's data set. None: where `t2i fetch` put it.
        reporter: Receives the progress. None: lines on stderr.

    Returns:
        The results.

    Raises:
        UserError: Something is unknown or missing, a sampler does not fit the model, or the
            benchmark's headline is not a score of its headline set.
    """
    reporter = reporter or BenchmarkLines()
    benchmark = with_samples(find_benchmark(name, protocol), samples)
    located = find(run)
    model = load(located)
    choices = _choices(model, samplers, steps, reporter)
    place = Path(out) if out else _default_out(located)
    lock = folder_lock(place)
    take_folder(lock, f"another benchmark writes to {place}: wait for it, or name another --out")
    try:
        refuse_links(place)
        return _compared(benchmark, run, located, model, choices, place, data_dir, reporter)
    finally:
        lock.release()


def _compared(
    benchmark: Benchmark,
    run: str | Path,
    located: Located,
    model: Model,
    choices: Sequence[Choice[SamplerConfig]],
    place: Path,
    data_dir: Path | None,
    reporter: BenchmarkReporter,
) -> SamplerResults:
    """Sample and score every combination, and write the results."""
    name, folder = benchmark.name, data_folder(benchmark, data_dir)
    benchmark = filled_in(benchmark, BenchmarkRequest(name, runs={"run": run}), folder)
    captions = caption_set(benchmark, benchmark.headline_set, str(folder) if folder else None)
    benchmark, left_out = with_what_is_there(_without_training(benchmark))
    for measure, reason in left_out.items():
        reporter.say(f"left out: {measure} ({reason})")
    scorer = Scorer(benchmark, best_device())
    reference = reference_of(benchmark, captions)
    scorer.reference = reference_features(reference.data, reference.count, scorer.extractors)
    columns = [c for c in scorer.table_columns() if c.set == captions.prompts.name]
    if scorer.headline() not in columns:
        raise UserError(
            f"benchmark '{name}': its headline is no score of single images; nothing to compare by"
        )
    points = [
        _point(model, choice, captions, scorer, benchmark.seed, reporter) for choice in choices
    ]
    told = {
        "benchmark": name, "protocol": benchmark.protocol, "captions": captions.prompts.count,
        "captions_sha256": fingerprint(captions.captions), "seed": benchmark.seed,
        "measures": scorer.protocol(),
    }  # fmt: skip
    results = SamplerResults(
        name,
        located.name,
        scorer.headline(),
        columns,
        told,
        points,
        place,
        environment(best_device()),
    )
    write_json(place / "samplers.json", results.document())
    write_bytes(place / "samplers.svg", sampler_curves(results.curves(), results.headline))
    reporter.say(f"written: {place / 'samplers.json'}, {place / 'samplers.svg'}")
    return results


def _without_training(benchmark: Benchmark) -> Benchmark:
    """Leave out the measures that compare with training images: a sampler does not change them."""
    measures = [m for m in benchmark.measures if not build_metric(m).training]
    return replace(benchmark, measures=measures)


def _default_out(place: Located) -> Path:
    """Choose the folder of the results: in the run, or under runs/ for another project's model."""
    if place.run is None:
        return RUNS / f"bench-samplers-{Path(place.name).name}"
    whole = place.model_folder == place.run.model
    out = place.run.path / ("bench-samplers" if whole else f"bench-samplers-{place.path.name}")
    if out.is_symlink():
        raise UserError(f"{out} is a link: remove it, or name a folder with --out")
    return out


def _choices(
    model: Model,
    samplers: Sequence[str] | None,
    steps: Sequence[int],
    reporter: BenchmarkReporter,
) -> list[Choice[SamplerConfig]]:
    """Return every combination, checked before anything is sampled.

    Without names, those that the model cannot be sampled by are left out.
    """
    family = model.generator.family
    fitting = [spec.name for spec in fitting_samplers(family)]
    if not samplers and not fitting:
        raise UserError(f"no sampler draws from {family} models: nothing to compare")
    if samplers:
        return [model.sampler(sampler, steps=count) for sampler in samplers for count in steps]
    found: list[Choice[SamplerConfig]] = []
    for sampler in fitting:
        for count in steps:
            try:
                found.append(model.sampler(sampler, steps=count))
            except UserError as error:  # the family fits, but not the schedule or this number
                reporter.say(f"left out: {sampler} with {count} steps ({error})")
    if not found:
        raise UserError(f"no sampler takes {', '.join(map(str, steps))} steps with this model")
    return found


def _point(
    model: Model,
    choice: Choice[SamplerConfig],
    captions: CaptionSet,
    scorer: Scorer,
    seed: int,
    reporter: BenchmarkReporter,
) -> Point:
    """Sample all captions by one sampler, and score the images."""
    steps, count = choice.config.steps, len(captions.captions)
    assert steps is not None
    clock, metrics = Clock(), scorer.metrics(captions.prompts)
    size = scorer.benchmark.image_size
    stream = timed(model, captions.captions, clock, seed=seed, sampler=choice, size=size)
    scores, intervals = scorer.score(metrics, stream)
    seconds = clock.seconds / count
    reporter.say(f"{choice.name}, {steps} steps: {count} images, {number(seconds)} s each")
    return Point(
        choice.name, steps, choice.config.model_dump(mode="json"), scores, intervals, seconds
    )
