"""Runs a benchmark: trains what has no run, draws on paired noise, scores while drawing, writes what came out.

Whatever is done is kept under OUT, so that the same command again does only what is missing:

OUT/runs/MODEL[-seedK]/   runs, as `t2i train` leaves them      OUT/scores/ROW.json   rows, with what they depend on
OUT/pictures/ROW/         the pictures of the grid              OUT/grids/            sheets of them
OUT/results.json          everything                            OUT/report.html       the same to look at
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import file_digest
from importlib.metadata import version
from pathlib import Path
from typing import Any

from t2i.benchmarks import grids
from t2i.benchmarks.drawing import Clock, timed
from t2i.benchmarks.features import fingerprint, reference_features
from t2i.benchmarks.plan import Entry, Plan, make_plan
from t2i.benchmarks.record import curve, environment, forget_peak_memory, training_record
from t2i.benchmarks.report import write_report
from t2i.benchmarks.reporting import Lines, Reporter
from t2i.benchmarks.results import VARIETY, Results, Row
from t2i.benchmarks.scorer import Scorer
from t2i.benchmarks.sets import CaptionSet, caption_set, real_pictures, wrong_pictures
from t2i.core import engine
from t2i.core.engine.reporting import Reporter as EngineReporter
from t2i.core.errors import UserError
from t2i.core.files import MANIFEST, read_json, write_json
from t2i.core.model import Model, best_device, load
from t2i.core.runs import Run
from t2i.core.scoring import Metric, Pictures

FLOOR = "wrong"
_TITLES = {grids.REAL: "real images", FLOOR: "real images, wrong captions"}


def run_benchmark(
    name: str, *, protocol: str | None = None, models: Sequence[str] | str | None = None,
    runs: Mapping[str, Path] | None = None, minutes: float | None = None, steps: int | None = None,
    samples: int | None = None, seeds: int = 1, out: Path | None = None, train_data: str | None = None,
    train_dir: Path | None = None, data_dir: Path | None = None, preset: str = "tiny",
    reporter: Reporter | None = None, engine_reporter: EngineReporter | None = None, command: str = "",
) -> Results:  # fmt: skip
    """Runs a registered benchmark and returns its results, which are also written under `out`.

    name, protocol: of the benchmark (default: its first protocol).
    models: registered models to train and score, or "all"; None: those of `runs`, else the benchmark's default.
    runs: row name -> run directory, scored as it is. The name is a model's, or any other if it is no model's.
    minutes or steps: the training budget of each model (default: the benchmark's minutes).
    samples: captions of the headline set, and at most so many of the others (default: the benchmark's).
    seeds: how many times each model is trained, with seeds 0, 1, ...
    out: default runs/bench-NAME. A finished run or score found there is kept, one begun is resumed.
    train_data, train_dir: another data set to train on, and its folder. data_dir: that of the benchmark's data set.
    preset: of every model that is trained.
    reporter: progress of the harness (default: lines on stderr); engine_reporter: of training (default: the engine's).
    Raises UserError for anything unknown, missing or contradictory, before anything is trained.
    """
    plan = make_plan(
        name, protocol=protocol, models=models, runs=runs or {}, minutes=minutes, steps=steps, samples=samples,
        seeds=seeds, out=out, train_data=train_data, train_dir=train_dir, data_dir=data_dir, preset=preset,
    )  # fmt: skip
    return _Session(plan, reporter or Lines(), engine_reporter, command).run()


@dataclass
class _Session:
    """One benchmark being run. Nothing here outlives the command: what must, is a file under `plan.out`."""

    plan: Plan
    reporter: Reporter
    engine_reporter: EngineReporter | None
    command: str
    sets: list[CaptionSet] = field(default_factory=list)

    def run(self) -> Results:
        benchmark, out = self.plan.benchmark, self.plan.out
        _writable(out)
        self.device = best_device()
        self.scorer = Scorer(benchmark, self.device)
        headline = self.scorer.headline()
        self.sets = [caption_set(benchmark, prompts, self.plan.data_dir) for prompts in benchmark.prompts]
        self.headline_set = next(s for s in self.sets if s.prompts.headline)
        path = grids.save_real(out, self.sets, *benchmark.grid)
        self.reporter.say(f"real pictures to compare with: {path}")
        self.protocol = self._protocol()
        self.protocol_hash = fingerprint(self.protocol)
        rows = self._real_rows()
        for entry in self.plan.entries:
            run = entry.run if entry.given else self._trained(entry)
            rows.append(self._model_row(entry, run))
        rows.append(rows.pop(1))  # the floor stands last
        self._warn(rows)
        results = Results(
            benchmark.name, self.protocol, self.protocol_hash, dict(self.plan.budget), self.scorer.table_columns(),
            headline, self.scorer.bars(), rows, self._grid_entries(), environment(self.device), self.command,
            time.strftime("%Y-%m-%dT%H:%M:%S%z"), out,
        )  # fmt: skip
        results.save()
        shown = [(row.name if row.kind == "model" else grids.REAL, row.name) for row in rows if row.pictured]
        sheet = grids.save_comparison(out, shown, [entry["caption"] for entry in results.grid])
        self.reporter.say(f"side by side: {sheet}")
        write_report(results)
        self.reporter.say(f"report: {results.report}")
        return results

    # --- what the scores depend on

    def _protocol(self) -> dict[str, Any]:
        benchmark, reference = self.plan.benchmark, self.headline_set
        self.reporter.say(f"reference: {benchmark.reference} pictures of '{benchmark.dataset}'")
        self.scorer.reference = reference_features(reference.data, benchmark.reference, self.scorer.extractors)
        return {
            "format": 1,
            "benchmark": benchmark.name,
            "protocol": benchmark.protocol,
            "dataset": {"name": benchmark.dataset, "settings": dict(benchmark.data)},
            "image_size": benchmark.image_size,
            "prompts": [_describe_set(captions) for captions in self.sets],
            "samples_per_caption": benchmark.samples,
            "variety": {"captions": self._variety()[0], "samples": self._variety()[1]},
            "sampling_seed": benchmark.seed,
            "reference": {
                "split": reference.prompts.split,
                "count": benchmark.reference,
                "fingerprint": reference.data.fingerprint(),
            },
            "real_images": reference.source,
            "pictures": "uint8 RGB in memory, never compressed; resized by the feature extractor alone",
            "measures": self.scorer.protocol(),
            "torch_fidelity": version("torch-fidelity"),
        }

    def _variety(self) -> tuple[int, int]:
        captions, samples = self.plan.benchmark.variety
        return min(captions, self.headline_set.prompts.count), samples

    def _grid_entries(self) -> list[dict[str, str]]:
        benchmark = self.plan.benchmark
        return grids.grid_entries(self.sets, benchmark.grid[0], benchmark.grid_captions)

    # --- real pictures: the ceiling and the floor

    def _real_rows(self) -> list[Row]:
        """The ceiling and the floor."""

        def ceiling(captions: CaptionSet, count: int, samples: int) -> Iterator[Pictures]:
            return real_pictures(captions, count, samples if captions.has_variants else 1)

        return [
            self._kept(grids.REAL, {}, lambda: self._score_real("real", ceiling, self.headline_set.has_variants)),
            self._kept(FLOOR, {}, lambda: self._score_real("floor", wrong_pictures, True)),
        ]

    def _score_real(self, kind: Any, stream: Callable[[CaptionSet, int, int], Iterator[Pictures]], many: bool) -> Row:
        """many: whether the stream has several pictures of a caption, as diversity needs."""
        row = Row(_TITLES[grids.REAL if kind == "real" else FLOOR], kind)
        for captions in self.sets:
            metrics = self.scorer.metrics(captions.prompts, captioned_only=kind == "floor")
            self.reporter.say(f"scoring {row.name}: {captions.prompts.name}")
            count, samples = captions.prompts.count, self.plan.benchmark.samples
            self._score(row, captions.prompts.name, metrics, stream(captions, count, samples))
        if many:
            metrics = self.scorer.metrics(None, captioned_only=kind == "floor")
            self._score(row, VARIETY, metrics, stream(self.headline_set, *self._variety()))
        return row

    def _score(self, row: Row, where: str, metrics: dict[str, Metric], stream: Iterator[Pictures]) -> None:
        if metrics:
            row.scores[where], row.intervals[where] = self.scorer.score(metrics, stream)

    # --- models

    def _trained(self, entry: Entry) -> Run:
        """The finished run of an entry: found, resumed or made."""
        wanted, asked = entry.config.dump(), self.plan.out / "runs" / f"{entry.label}.json"
        if entry.run.path.exists():
            if not asked.is_file() or read_json(asked, f"benchmark {self.plan.out}") != wanted:
                raise UserError(
                    f"{entry.run.path} was trained with other settings than these; name another --out, or remove it"
                )
            if entry.run.complete:
                self.reporter.say(f"{entry.label}: found, trained before ({entry.run.path})")
                return entry.run
            if any(entry.run.checkpoints.glob("step-*")):
                self.reporter.say(f"{entry.label}: resuming {entry.run.path}")
                return engine.resume(entry.run.path, reporter=self.engine_reporter)
            shutil.rmtree(entry.run.path)  # begun, but stopped before anything could be kept
        budget = " ".join(f"{value} {unit}" for unit, value in self.plan.budget.items())
        self.reporter.say(f"{entry.label}: training for {budget} into {entry.run.path}")
        write_json(asked, wanted)
        forget_peak_memory()
        return engine.train(entry.config, entry.run.path, reporter=self.engine_reporter, command=self.command)

    def _model_row(self, entry: Entry, run: Run) -> Row:
        with open(run.model / MANIFEST, "rb") as file:
            depends = {"model": file_digest(file, "sha256").hexdigest(), "seed": entry.seed}
        return self._kept(entry.label, depends, lambda: self._score_model(entry, run))

    def _score_model(self, entry: Entry, run: Run) -> Row:
        model, benchmark = load(run.path, str(self.device)), self.plan.benchmark
        row = Row(entry.label, "model", entry.name, entry.seed)
        clock = Clock()
        for captions in self.sets:
            metrics = self.scorer.metrics(captions.prompts)
            what = f"{row.name}, {captions.prompts.name}"
            self._score(
                row, captions.prompts.name, metrics,
                self._drawn(model, captions.captions, benchmark.samples, what, clock),
            )  # fmt: skip
        count, samples = self._variety()
        several = self._drawn(model, self.headline_set.captions[:count], samples, f"{row.name}, variety", clock)
        self._score(row, VARIETY, self.scorer.metrics(None), several)
        self._draw_grid(model, row)
        row.training = training_record(entry, run, model)
        row.sampling = {**model.sampler().dump(), "seconds_per_image": clock.seconds / clock.pictures}
        row.curve = curve(run)
        return row

    def _drawn(
        self, model: Model, captions: Sequence[str], samples: int, what: str, clock: Clock
    ) -> Iterator[Pictures]:
        total, done = len(captions) * samples, 0
        self.reporter.say(f"drawing and scoring {what}: {total} pictures")
        for pictures in timed(model, captions, clock, n=samples, seed=self.plan.benchmark.seed):
            done += len(pictures.captions)
            self.reporter.count(what, done, total)
            yield pictures

    def _draw_grid(self, model: Model, row: Row) -> None:
        captions = [entry["caption"] for entry in self._grid_entries()]
        images = []
        for batch in model.draw(captions, n=self.plan.benchmark.grid[1], seed=self.plan.benchmark.seed):
            for drawn in batch:
                grids.save_picture(self.plan.out, row.name, drawn.prompt, drawn.sample, drawn.image)
                images.append(drawn.image)
        path = grids.save_sheet(self.plan.out, row.name, images, self.plan.benchmark.grid[1])
        self.reporter.say(f"pictures of {row.name}: {path}")

    # --- what is kept and what is said

    def _kept(self, name: str, depends: dict[str, Any], make: Callable[[], Row]) -> Row:
        """A row from OUT/scores, if it was made under the same protocol of the same model; else a new one."""
        path = self.plan.out / "scores" / f"{name}.json"
        key = {"protocol": self.protocol_hash, "grid": fingerprint(self._grid_entries()), **depends}
        if path.is_file():
            document = read_json(path, "scores")
            if isinstance(document, dict) and document.get("key") == key:
                self.reporter.say(f"{name}: scored before")
                return Row.parse(document["row"])
        row = make()
        write_json(path, {"key": key, "row": asdict(row)})
        return row

    def _warn(self, rows: Sequence[Row]) -> None:
        """Fills in what a reader of the table should know of each model."""
        real = rows[0]
        for row in (row for row in rows if row.kind == "model"):
            row.warnings = []
            for where, measures in row.scores.items():
                for name, scores in measures.items():
                    ceiling = real.scores.get(where, {}).get(name)
                    row.warnings += self.scorer.prototypes[name].warnings(scores, ceiling)
            row.warnings += self._own_judges(row)

    def _own_judges(self, row: Row) -> list[str]:
        """A score given by a network that the model was trained against says little."""
        return [
            f"'{name}' looks through {network}, which this model was trained with"
            for name, network in self.scorer.own_judges(_texts(row.training.get("config")))
        ]


def _texts(document: Any) -> Iterator[str]:
    """All texts in a JSON document."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, Mapping):
        for value in document.values():
            yield from _texts(value)
    elif isinstance(document, list | tuple):
        for value in document:
            yield from _texts(value)


def _writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot make the folder ({error.strerror}); name another") from None
    if not os.access(out, os.W_OK):
        raise UserError(f"--out {out}: no permission to write there; name another folder")


def _describe_set(captions: CaptionSet) -> dict[str, Any]:
    prompts = captions.prompts
    return {
        "name": prompts.name,
        "about": prompts.about,
        "split": prompts.split,
        "count": prompts.count,
        "settings": dict(prompts.data),
        "headline": prompts.headline,
        "fingerprint": captions.data.fingerprint(),
        "captions_sha256": fingerprint(captions.captions),
    }
