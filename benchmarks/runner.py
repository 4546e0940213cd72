"""Runs a benchmark: trains what has no run, draws on paired noise, scores while drawing, writes what came out.

Whatever is done is kept under OUT, so that the same command again does only what is missing:

OUT/runs/MODEL[-seedK]/   runs, as `t2i train` leaves them      OUT/scores/ROW.json   rows, with what they depend on
OUT/pictures/ROW/         the pictures of the grid              OUT/grids/            sheets of them
OUT/pictures/ROW/SET/     all that were scored, if wished       OUT/partial/ROW/      a row that is half done
OUT/results.json          everything                            OUT/report.html       the same to look at
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from t2i.benchmarks.report.page import write_report
from t2i.benchmarks.results import Results, Row
from t2i.benchmarks.run import grids
from t2i.benchmarks.run.plan import Plan, make_plan
from t2i.benchmarks.run.record import environment
from t2i.benchmarks.run.reporting import Lines, Reporter, Silent
from t2i.benchmarks.run.rows import Rows
from t2i.benchmarks.run.sets import CaptionSet, caption_set, reference_of
from t2i.benchmarks.run.trained import finished_run
from t2i.benchmarks.score.features import fingerprint, reference_features
from t2i.benchmarks.score.measures import with_what_is_there
from t2i.benchmarks.score.scorer import Scorer
from t2i.core.devices import best_device
from t2i.core.engine.reporting import Reporter as EngineReporter
from t2i.core.errors import UserError
from t2i.core.io.processes import Group


def run_benchmark(
    name: str, *, protocol: str | None = None, models: Sequence[str] | str | None = None,
    runs: Mapping[str, Path] | None = None, minutes: float | None = None, steps: int | None = None,
    samples: int | None = None, seeds: int = 1, out: Path | None = None, train_data: str | None = None,
    train_dir: Path | None = None, data_dir: Path | None = None, preset: str | None = None, keep_images: bool = False,
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
    train_data, train_dir: another data set to train on, and its folder. data_dir: that of the benchmark's data set
    (default: where `t2i fetch` put it).
    preset: of every model that is trained (default: the benchmark's).
    keep_images: writes all pictures that are scored as PNG under OUT/pictures/ROW/.
    reporter: progress of the harness (default: lines on stderr); engine_reporter: of training (default: the engine's).
    Raises UserError for anything unknown, missing or contradictory, before anything is trained.

    Under `torchrun` all processes call this alike, with one `out` that they share; all of them
    return the results, and the first has written them.
    """
    plan = make_plan(
        name, protocol=protocol, models=models, runs=runs or {}, minutes=minutes, steps=steps, samples=samples,
        seeds=seeds, out=out, train_data=train_data, train_dir=train_dir, data_dir=data_dir, preset=preset,
        keep_images=keep_images,
    )  # fmt: skip
    group = Group()
    words = (reporter or Lines()) if group.is_first else Silent()
    return _Session(plan, group, words, engine_reporter, command).run()


@dataclass
class _Session:
    """One benchmark being run. Nothing here outlives the command: what must, is a file under `plan.out`."""

    plan: Plan
    group: Group
    reporter: Reporter
    engine_reporter: EngineReporter | None
    command: str

    def run(self) -> Results:
        self._prepare()
        rows, floor = [self.rows.real()], self.rows.floor()
        for entry in self.plan.entries:
            run = finished_run(entry, self.plan, self.group, self.reporter, self.engine_reporter, self.command)
            rows.append(self.rows.model(entry, run))
        rows.append(floor)
        self._warn(rows)
        benchmark, scorer = self.plan.benchmark, self.scorer
        results = Results(
            benchmark.name, self.protocol, self.rows.protocol_hash, dict(self.plan.budget), scorer.table_columns(),
            scorer.headline(), scorer.bars(), rows, self.rows.grid_entries(), environment(self.device), self.command,
            time.strftime("%Y-%m-%dT%H:%M:%S%z"), list(benchmark.published), self.left_out, self.plan.out,
        )  # fmt: skip
        self.group.first(lambda: self._write(results))
        return results

    def _prepare(self) -> None:
        """All that can fail for want of something, before anything is trained."""
        out, folder = self.plan.out, self.plan.data_dir
        self.group.first(lambda: _writable(out))
        self.device = best_device()
        self.sets = [caption_set(self.plan.benchmark, prompts, folder) for prompts in self.plan.benchmark.prompts]
        benchmark, self.left_out = with_what_is_there(self.plan.benchmark)
        for name, reason in self.left_out.items():
            self.reporter.say(f"left out: {name} ({reason})")
        self.scorer = Scorer(benchmark, self.device)
        self.scorer.headline()
        path = self.group.first(lambda: grids.save_real(out, self.sets, *benchmark.grid))
        self.reporter.say(f"real pictures to compare with: {path}")
        self.protocol = self.group.first(self._protocol)
        told = fingerprint(_without_words(self.protocol))
        self.rows = Rows(self.plan, self.scorer, self.sets, self.group, self.reporter, told, self.device)

    def _protocol(self) -> dict[str, Any]:
        """What the scores depend on. On the way the features of the reference are taken: in one process alone."""
        benchmark = self.plan.benchmark
        headline = next(captions for captions in self.sets if captions.prompts.headline)
        reference = reference_of(benchmark, headline)
        self.reporter.say(f"reference: {reference.count} pictures of '{benchmark.dataset}'")
        self.scorer.reference = reference_features(reference.data, reference.count, self.scorer.extractors)
        captions, samples = benchmark.variety
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
            "pictures": "uint8 RGB in memory, never compressed; resized by the feature extractor alone",
            "measures": self.scorer.protocol(),
            "torch_fidelity": version("torch-fidelity"),
        }

    def _write(self, results: Results) -> None:
        results.save()
        shown = [(row.name if row.kind == "model" else grids.REAL, row.name) for row in results.rows if row.pictured]
        sheet = grids.save_comparison(self.plan.out, shown, [entry["caption"] for entry in results.grid])
        self.reporter.say(f"side by side: {sheet}")
        write_report(results)
        self.reporter.say(f"report: {results.report}")

    def _warn(self, rows: Sequence[Row]) -> None:
        """Fills in what a reader of the table should know of each model."""
        real = rows[0]
        for row in (row for row in rows if row.kind == "model"):
            row.warnings = [f"its pictures were resized {row.sampling['resized']}"] if "resized" in row.sampling else []
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


def _without_words(protocol: dict[str, Any]) -> dict[str, Any]:
    """What of a protocol decides: how a set of captions is described does not."""
    prompts = [{key: value for key, value in entry.items() if key != "about"} for entry in protocol["prompts"]]
    return {**protocol, "prompts": prompts}


def _describe_set(captions: CaptionSet) -> dict[str, Any]:
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
