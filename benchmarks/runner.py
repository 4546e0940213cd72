"""Run a benchmark: train models, sample them on the same noise, score the images, write results.

Everything that is finished is kept under OUT, so the same command does only what is missing:

OUT/runs/MODEL[-seedK]/   runs, as `t2i train` writes them
OUT/runs/MODEL.json       the settings of such a run, to detect that others are requested later
OUT/partial/ROW/          an unfinished row
OUT/scores/ROW.json       a finished row, with the key of everything that it depends on
OUT/pictures/ROW/         the images of the grid
OUT/pictures/nearest/ROW/  the training images that are nearest to those, where they are compared
OUT/pictures/ROW/SET/     all scored images, if they are to be kept
OUT/grids/                the images of the grid: a sheet for each row, and all rows on one sheet
OUT/operations.json       operations of the training steps, and how fast the machine does them
OUT/results.json          the results; rows of later commands under the same protocol are added
OUT/report.html           the report
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from t2i.benchmarks.benchmark_request import BenchmarkRequest
from t2i.benchmarks.earlier import earlier_results, with_earlier
from t2i.benchmarks.report.page import write_report
from t2i.benchmarks.results import Results, Row
from t2i.benchmarks.run import grids
from t2i.benchmarks.run.arithmetic import Arithmetic, counted
from t2i.benchmarks.run.caption_sets import CaptionSet, reference_of
from t2i.benchmarks.run.likelihoods import Likelihoods, ranked_apart
from t2i.benchmarks.run.out_folder import held_out
from t2i.benchmarks.run.plan import BenchmarkPlan, PlannedRun, make_plan
from t2i.benchmarks.run.protocol_fit import caption_sets, left_out
from t2i.benchmarks.run.reporter import (
    BenchmarkReporter,
    SilentBenchmark,
    TrainingPart,
    WholeCommand,
)
from t2i.benchmarks.run.row_maker import RowMaker
from t2i.benchmarks.run.timeline import Timeline, Work
from t2i.benchmarks.run.trained_run import finished_run, finished_together, refuse_other_settings
from t2i.benchmarks.run.training_images import TrainingImages, other_data, training_images
from t2i.benchmarks.run.training_record import check_records, environment
from t2i.benchmarks.score.available_measures import with_what_is_there
from t2i.benchmarks.score.extraction import fingerprint, reference_features
from t2i.benchmarks.score.scorer import Scorer
from t2i.benchmarks.votes.column import add_votes, check_names
from t2i.benchmarks.votes.judgement import Judgements
from t2i.benchmarks.votes.judging import judge
from t2i.core.devices import best_device
from t2i.core.engine.reporting import Reporter as EngineReporter
from t2i.core.engine.reporting import Silent, default_reporter
from t2i.core.errors import Interrupted
from t2i.core.io.processes import Group
from t2i.core.io.sealed import MANIFEST, verify
from t2i.core.registry.tables import registry


def run_benchmark(
    name: str,
    *,
    reporter: BenchmarkReporter | None = None,
    engine_reporter: EngineReporter | None = None,
    **fields: Any,
) -> Results:
    """Run a registered benchmark.

    For example `run_benchmark("shapes", models=["ldm", "dfgan"], minutes=5)`.

    Args:
        name: Name of the benchmark.
        reporter: Receives the progress of the benchmark, as in `run_request`.
        engine_reporter: Receives the progress of training, as in `run_request`.
        **fields: Any other field of `BenchmarkRequest`.

    Returns:
        The results, as in `run_request`.

    Raises:
        UserError: Something in the request is unknown, missing or contradictory.
    """
    return run_request(BenchmarkRequest(name, **fields), reporter, engine_reporter)


def run_request(
    request: BenchmarkRequest,
    reporter: BenchmarkReporter | None = None,
    engine_reporter: EngineReporter | None = None,
) -> Results:
    """Train, sample and score the models of a request, and write the results.

    Under `torchrun` all processes call this function with the same request, whose `out` they share.
    The first process writes the results.

    Args:
        request: The benchmark, its models and its settings.
        reporter: Receives the progress of the benchmark. None: lines on stderr.
        engine_reporter: Receives the progress of training. None: the engine's default reporter.

    Returns:
        The results, the same in every process.

    Raises:
        UserError: Something in the request is unknown, missing or contradictory, or a run in `out`
            was trained with other settings. This is checked before anything is trained.
    """
    plan, group = make_plan(request), Group()
    timeline = Timeline(works_of(plan), began=request.began, jobs=plan.jobs)
    if not group.is_first or (reporter and engine_reporter):
        words: BenchmarkReporter = SilentBenchmark()
        if reporter and group.is_first:
            words = reporter
        return _Session(plan, group, words, lambda row: engine_reporter, timeline, request).run()
    whole = WholeCommand(default_reporter(), timeline)

    def of_training(row: str) -> EngineReporter:
        return engine_reporter or TrainingPart(row, whole)

    try:
        return _Session(plan, group, reporter or whole, of_training, timeline, request).run()
    finally:
        whole.close()


@dataclass
class _Session:
    """A benchmark while it runs.

    Everything that must outlive the command is in files under `plan.out`.
    """

    plan: BenchmarkPlan
    group: Group
    reporter: BenchmarkReporter
    engine_reporter: Callable[[str], EngineReporter | None]
    timeline: Timeline
    request: BenchmarkRequest

    def run(self) -> Results:
        try:
            with held_out(self.plan.out, self.group):
                return self._run()
        except KeyboardInterrupt as error:
            error.add_note("the same command goes on")
            raise

    def _run(self) -> Results:
        self._prepare()
        pictured = self.pictured
        rows = [self.rows.real()] if pictured else []
        floor = [self.rows.floor()] if pictured else []
        for entries in self.plan.turns():
            self._train(entries)
            for entry in entries:
                with self.timeline.scoring(entry.label):
                    rows.append(self.rows.model(entry, entry.run))
                    self.likelihoods.add(rows[-1], entry)
        rows += floor
        self._count_operations(rows)
        self._warn(rows)
        benchmark, scorer = self.plan.benchmark, self.scorer
        results = Results(
            benchmark.name, self.protocol, self.rows.protocol_hash, self._budget(),
            ranked_apart(scorer.table_columns(), rows, scorer.prototypes), scorer.headline(),
            scorer.bars(), rows,
            self.rows.grid_entries(), environment(self.device), self.request.command,
            time.strftime("%Y-%m-%dT%H:%M:%S%z"), list(benchmark.published), self.left_out,
            self.timeline.division(), self.plan.out,
        )  # fmt: skip
        results = with_earlier(results, self.earlier)
        if self.judgements:
            add_votes(results, self.judgements)
        self.group.first(lambda: self._write(results))
        return results

    @property
    def pictured(self) -> bool:
        """Whether the benchmark's data set has real images."""
        return registry().datasets[self.plan.benchmark.dataset].images

    def _budget(self) -> dict[str, Any]:
        """Return the training budget, with the number of trainings at once if there are several."""
        at_once = {"jobs": self.plan.jobs} if self.plan.jobs > 1 else {}
        return {**self.plan.budget, **at_once}

    def _train(self, entries: Sequence[PlannedRun]) -> None:
        """Train the rows of a turn, those that are not finished."""
        try:
            self._train_unfinished(entries)
        except Interrupted as error:
            told = f"{str(error).partition(';')[0]}; the same command goes on"
            raise Interrupted(told, error.exit_code - 128) from None

    def _train_unfinished(self, entries: Sequence[PlannedRun]) -> None:
        plan, command = self.plan, self.request.command
        speakers = {entry.label: self.engine_reporter(entry.label) for entry in entries}
        together = sum(not (entry.given or entry.run.complete) for entry in entries)
        with ExitStack() as stack:
            for entry in entries:
                stack.enter_context(self.timeline.training(entry.label, max(1, together)))
            if plan.jobs > 1 and not entries[0].given:
                known = {name: speaker or Silent() for name, speaker in speakers.items()}
                finished_together(entries, plan, self.reporter, known, command)
                return
            for entry in entries:
                speaker = speakers[entry.label]
                finished_run(entry, plan, self.group, self.reporter, speaker, command)

    def _prepare(self) -> None:
        """Open all that may be missing (folder, data, metrics) before anything is trained."""
        out, folder = self.plan.out, self.plan.data_dir
        self.group.first(lambda: refuse_other_settings(self.plan))
        self.group.first(lambda: check_records(self.plan))
        self.device = best_device()
        self.reporter.say(self.plan.told())
        self.judgements = self._judgements()
        self.sets = caption_sets(self.plan.benchmark, folder)
        for line in left_out(self.sets):
            self.reporter.say(line)
        benchmark, self.left_out = with_what_is_there(self.plan.benchmark)
        for name, reason in self.left_out.items():
            self.reporter.say(f"left out: {name} ({reason})")
        self.scorer = Scorer(benchmark, self.device)
        self.scorer.headline()
        self.training: TrainingImages | None = None
        self.protocol = self.group.first(self._protocol)
        self.likelihoods = Likelihoods(
            out, next(captions for captions in self.sets if captions.prompts.headline), self.scorer,
            benchmark.seed, self.group, self.reporter, self.timeline, self.device,
        )  # fmt: skip
        self.likelihoods.check()
        told = fingerprint(_without_words(self.protocol, self.likelihoods.measures))
        self.rows = RowMaker(
            self.plan, self.scorer, self.sets, self.group, self.reporter, told, self.device,
            self.timeline, self.training,
        )  # fmt: skip
        self.group.first(self.rows.check_kept)
        self.earlier = self.group.first(
            lambda: earlier_results(out, self.protocol, told, self.plan.runs)
        )
        if self.pictured:
            path = self.group.first(lambda: grids.save_real(out, self.sets, *benchmark.grid))
            self.reporter.say(f"real images to compare with: {path}")
        self.others = {entry.label: other_data(entry, self.plan) for entry in self.plan.runs}
        for label, text in self.others.items():
            if text:
                self.reporter.say(f"warning: {label}: {text}")

    def _judgements(self) -> Judgements | None:
        """Judge the models by the votes that are given."""
        if not self.request.votes:
            return None
        found = judge(self.request.votes)
        for name in check_names(found, [entry.label for entry in self.plan.runs]):
            self.reporter.say(f"votes: '{name}' is no row here, and left out")
        return found

    def _protocol(self) -> dict[str, Any]:
        """Return everything that the scores depend on, as JSON.

        It also extracts the features of the reference images and of training images. `_prepare`
        calls it in the first process alone, which is the only one that computes scores.
        """
        benchmark = self.plan.benchmark
        headline = next(captions for captions in self.sets if captions.prompts.headline)
        reference = reference_of(benchmark, headline)
        size = f"{benchmark.image_size}x{benchmark.image_size}"
        if self.pictured:
            told = f"{reference.count} images of '{benchmark.dataset}', {size}"
            self.reporter.say(f"reference: {told}")
        self.scorer.reference = reference_features(
            reference.data, reference.count, self.scorer.extractors
        )
        captions, samples = benchmark.variety
        training = {}
        if names := self.scorer.training_features():
            self.training = training_images(
                self.plan, names, self.scorer.extractors, self.reporter.say
            )
            self.scorer.training = self.training.features
            training = {"training": self.training.describe()}
        return {
            "format": 1,
            "benchmark": benchmark.name,
            "protocol": benchmark.protocol,
            "dataset": {"name": benchmark.dataset, "settings": dict(benchmark.data)},
            "image_size": benchmark.image_size,
            "prompts": [_describe_set(captions) for captions in self.sets],
            "samples_per_caption": benchmark.samples,
            "variety": {"captions": min(captions, headline.prompts.count), "samples": samples},
            "sampling_seed": benchmark.seed,
            "reference": {
                "split": headline.prompts.split,
                "count": reference.count,
                "pictures": reference.about,
                "fingerprint": reference.data.fingerprint(),
            },
            "real_images": headline.source,
            "pictures": "uint8 RGB in memory, never compressed; "
            "resized by the feature extractor alone",
            "measures": self.scorer.protocol(),
            "torch_fidelity": version("torch-fidelity"),
            **_shipped(benchmark.dataset),
            **training,
        }

    def _write(self, results: Results) -> None:
        shown = [
            (row.name if row.kind == "model" else grids.REAL, row.name)
            for row in results.rows
            if row.has_images
        ]
        sheet = grids.save_comparison(
            self.plan.out, shown, [entry["caption"] for entry in results.grid]
        )
        self.reporter.say(f"side by side: {sheet}")
        results.spent = self.timeline.division()  # with the sheets
        results.save()
        write_report(results)
        self.reporter.say(f"report: {results.report}")

    def _count_operations(self, rows: Sequence[Row]) -> None:
        """Add the operations that each model's training took, and the machine's rate."""
        models = [row for row in rows if row.kind == "model"]
        for entry, row in zip(self.plan.runs, models, strict=True):
            steps = {stage["name"]: stage["steps"] for stage in row.training.get("stages", ())}
            found = self.group.first(partial(self._operations, entry)) if steps else None
            row.training.update({"operations": found.document(steps)} if found else {})

    def _operations(self, entry: PlannedRun) -> Arithmetic | None:
        file = self.plan.out / "operations.json"
        return counted(entry.label, entry.config, file, self.reporter.say)

    def _warn(self, rows: Sequence[Row]) -> None:
        """Set the warnings in each model's row."""
        real = next((row for row in rows if row.kind == "real"), None)
        if real is not None:
            real.warnings = self._shown_in_training()
        for row in (row for row in rows if row.kind == "model"):
            row.warnings = [text] if (text := self.others.get(row.name)) else []
            if "resized" in row.sampling:
                row.warnings.append(f"its images were resized {row.sampling['resized']}")
            for where, measures in row.scores.items():
                for name, scores in measures.items():
                    ceiling = real.scores.get(where, {}).get(name) if real else None
                    row.warnings += self.scorer.prototypes[name].warnings(scores, ceiling)
            row.warnings += self._own_judges(row)

    def _shown_in_training(self) -> list[str]:
        """Warn if the other real images are training images, for want of others."""
        headline = next(captions for captions in self.sets if captions.prompts.headline)
        training = self.protocol.get("training", {}).get("fingerprint")
        if training is None or headline.other.fingerprint() != training:
            return []
        return [
            f"split '{headline.prompts.split}' has too few images to compare with others of its "
            "kind: these are training images, which count as memorised"
        ]

    def _own_judges(self, row: Row) -> list[str]:
        """Warn of measures whose network the model was trained with: such scores say little."""
        return [
            f"'{name}' uses {network}, which this model was trained with"
            for name, network in self.scorer.own_judges(_texts(row.training.get("config")))
        ]


def works_of(plan: BenchmarkPlan) -> list[Work]:
    """List the work on the rows of models, to estimate how long a benchmark takes.

    Args:
        plan: The plan of the benchmark.

    Returns:
        The work on each row. Nothing is trained where a run is given or complete.
    """
    benchmark = plan.benchmark
    captions, samples = benchmark.variety
    images = captions * samples + benchmark.samples * sum(p.count for p in benchmark.prompts)
    minutes = plan.budget.get("minutes")
    budget = None if minutes is None else 60.0 * minutes * plan.jobs
    return [
        Work(entry.label, entry.name, 0.0 if entry.given or entry.run.complete else budget, images)
        for entry in plan.runs
    ]


def _texts(document: Any) -> Iterator[str]:
    """Yield all strings in a JSON document, at any depth; keys are left out."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, Mapping):
        for value in document.values():
            yield from _texts(value)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from _texts(value)


def _without_words(protocol: dict[str, Any], apart: Sequence[str] = ()) -> dict[str, Any]:
    """Return the protocol without what does not affect the scores of images.

    These are descriptions of caption sets, and the measures `apart`, which score no images. Of the
    user's own images also the settings of the data set, which may name files: the fingerprints say
    what was read.
    """
    prompts = [
        {key: value for key, value in entry.items() if key != "about"}
        for entry in protocol["prompts"]
    ]
    dataset = protocol["dataset"]
    if registry().benchmarks[protocol["benchmark"]].any_data:
        dataset = {"name": dataset["name"]}
    measures = {name: value for name, value in protocol["measures"].items() if name not in apart}
    return {**protocol, "prompts": prompts, "dataset": dataset, "measures": measures}


def _shipped(dataset: str) -> dict[str, Any]:
    """Return the protocol's entry of the pretrained weights that a data set ships, if it does."""
    hashes = {}
    for weights in registry().datasets[dataset].shipped:
        folder = registry().shipped(weights.name)
        assert folder is not None
        verify(folder, f"weights {weights.name}")
        hashes[weights.name] = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    return {"weights": hashes} if hashes else {}


def _describe_set(captions: CaptionSet) -> dict[str, Any]:
    """Return the protocol's entry of a caption set."""
    prompts = captions.prompts
    return {
        "name": prompts.name,
        "about": prompts.about,
        "split": prompts.split,
        "count": prompts.count,
        "settings": dict(prompts.data),
        "select": prompts.select,
        "headline": prompts.headline,
        "fingerprint": captions.data.fingerprint(),
        "captions_sha256": fingerprint(captions.captions),
    }
