"""`t2i bench`: score models side by side, compare results, measure speed."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from t2i.cli.command import (
    Command,
    LazyGroup,
    PlainPath,
    json_option,
    listed,
    path_option,
    run_option,
)
from t2i.cli.output import answer, answer_json, console, note, speaks
from t2i.core.errors import UserError
from t2i.core.io.terminal import printable

if TYPE_CHECKING:
    from t2i.benchmarks.results import Results

COMMANDS = {
    "run": ("t2i.cli.bench:run", "Run a benchmark ('t2i bench NAME' is short for it)."),
    "show": (
        "t2i.cli.bench:show",
        "Show results again; write their tables as CSV and LaTeX, or the report.",
    ),
    "diff": ("t2i.cli.bench:diff", "Say what differs between two results."),
    "samplers": (
        "t2i.cli.bench:samplers",
        "Score a run with every sampler, over numbers of steps.",
    ),
    "speedrun": (
        "t2i.cli.speedrun:speedrun",
        "Time how long a model takes to a fixed score, and keep records.",
    ),
    "speed": ("t2i.cli.bench:speed", "Time training steps and sampling, and what the engine adds."),
}

bench = LazyGroup(
    "bench",
    COMMANDS,
    help="Train, sample and score models side by side: t2i bench NAME ('t2i benchmarks' lists the "
    "names; "
    "'t2i bench run --help' the options).",
    fallback="run",
)


protocol_option = click.option(
    "--protocol", metavar="P", help="Protocol of the benchmark (default: its first)."
)
samples_option = click.option(
    "--samples",
    type=click.IntRange(2),
    metavar="N",
    help="Captions to score (default: the protocol's).",
)
data_dir_option = path_option(
    "--data-dir",
    metavar="DIR",
    help="Folder of the benchmark's data set.",
)
tables_option = path_option(
    "--tables",
    metavar="DIR",
    help="Write every table of the report into DIR, as NAME.csv and NAME.tex (booktabs).",
)
votes_option = path_option(
    "--votes",
    multiple=True,
    metavar="FILE",
    help="Votes of people, as 't2i web' writes them: a column of the table. Repeatable.",
)


@click.command(cls=Command)
@click.argument("name")
@protocol_option
@click.option(
    "--models",
    metavar="A,B",
    help="Models to train and score, or 'all' but upsamplers (default: the benchmark's).",
)
@run_option(
    "--run",
    "runs",
    multiple=True,
    metavar="M=RUN",
    help="Score this run as model M; may be repeated. RUN is what 't2i sample --run' takes.",
)
@data_dir_option
@click.option(
    "--data",
    metavar="D",
    help="Data set, for benchmarks of your own images (default: the one that reads DIR).",
)
@click.option(
    "--image-size",
    type=click.IntRange(8),
    metavar="S",
    help="Image size, for these benchmarks (default: by the size of the images).",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="data.K=V",
    help="A setting of the data set, for these benchmarks. Repeatable.",
)
@click.option("--train-data", metavar="D", help="Another data set to train on.")
@path_option(
    "--train-dir",
    metavar="DIR",
    help="Folder of the training data.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    metavar="T",
    help="Training time of each model, on the whole machine.",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    metavar="N",
    help="The same in steps, for exact repeatability.",
)
@samples_option
@click.option(
    "--seeds", type=click.IntRange(1), default=1, show_default=True, help="Trainings of each model."
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Models to train at once, each on its share of the cores and so many times as long "
    "(default: on a CPU what divides the models evenly, at most 4; else 1).",
)
@click.option(
    "--preset", metavar="P", help="Preset of the models that are trained (default: the protocol's)."
)
@click.option(
    "--keep-images",
    is_flag=True,
    help="Write all images that are scored, as PNG, under OUT/pictures.",
)
@click.option(
    "--likelihood",
    type=click.IntRange(2),
    metavar="N",
    help="Also compute the likelihood (bits per dimension) of N real images, for the models that "
    "can: minutes a model.",
)
@votes_option
@path_option(
    "--out",
    metavar="DIR",
    help="Folder (default: runs/bench-NAME).",
)
@tables_option
@json_option
def run(
    name: str, protocol: str | None, models: str | None, runs: tuple[str, ...],
    data_dir: Path | None, data: str | None, image_size: int | None, sets: tuple[str, ...],
    train_data: str | None, train_dir: Path | None, minutes: float | None, steps: int | None,
    samples: int | None, seeds: int, jobs: int | None, preset: str | None, keep_images: bool,
    likelihood: int | None, votes: tuple[Path, ...], out: Path | None, tables: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Run the benchmark NAME, and write results.json and report.html.

    Models without a run are trained. All models get the same captions and the same noise. The same
    command again does only what is missing. 'torchrun --nproc-per-node N -m -- t2i.cli bench NAME
    ...' shares the work among N processes.

    \b
    t2i bench shapes
    t2i bench shapes --models ldm,dfgan --minutes 5 --seeds 3
    t2i bench shapes --run ldm=runs/a --run other=runs/b
    t2i bench pictures --data-dir photos
    t2i bench shapes --tables thesis/tables
    """
    if minutes is not None and steps is not None:
        raise UserError("--steps and --minutes are two ways to say the budget: give one of them")
    began, given = time.monotonic(), _given_runs(runs)
    from t2i.benchmarks.benchmark_request import BenchmarkRequest
    from t2i.benchmarks.report.table import show as print_table
    from t2i.benchmarks.runner import run_request

    request = BenchmarkRequest(
        name, protocol=protocol, models=listed(models), runs=given, minutes=minutes, steps=steps,
        samples=samples, seeds=seeds, jobs=jobs, out=out, train_data=train_data,
        train_dir=train_dir, data_dir=data_dir, data=data,
        data_settings=_data_settings(sets), image_size=image_size, preset=preset,
        keep_images=keep_images, likelihood=likelihood, votes=votes, began=began,
        command=shlex.join(["t2i", *sys.argv[1:]]),
    )  # fmt: skip
    results = run_request(request)
    if not speaks():
        return
    _write_tables(results, tables)
    if as_json:
        answer_json(results.document())
        return
    print_table(results, console())
    answer(printable(f"report: {results.report}"))


def _write_tables(results: Results, folder: Path | None) -> None:
    """Write the tables if a folder is given, and say where they are."""
    if folder is None:
        return
    from t2i.benchmarks.report.export import write_tables

    for path in write_tables(results, folder):
        note(printable(f"table: {path}"))


@click.command(cls=Command)
@click.argument("path", type=PlainPath(), metavar="RESULTS")
@tables_option
@votes_option
@click.option("--report", is_flag=True, help="Write report.html beside the results anew.")
@json_option
def show(
    path: Path, tables: Path | None, votes: tuple[Path, ...], report: bool, as_json: bool
) -> None:
    """Print the table of results that are there.

    RESULTS is a results.json, or the folder that holds one. Nothing is trained or scored. With
    --votes the table and the report have a column more; results.json stays as it is.

    \b
    t2i bench show runs/bench-shapes --tables thesis/tables
    """
    from t2i.benchmarks.report.table import show as print_table
    from t2i.benchmarks.results import Results

    results = Results.load(path)
    if votes:
        from t2i.benchmarks.votes.column import add_votes
        from t2i.benchmarks.votes.judging import judge

        add_votes(results, judge(votes))
    _write_tables(results, tables)
    if report:
        from t2i.benchmarks.report.page import write_report

        note(printable(f"report: {write_report(results)}"))
    if as_json:
        answer_json(results.document())
    else:
        print_table(results, console())


def _data_settings(sets: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings of the data set; others are those of models, which are trained alike."""
    from t2i.core.runs.configure import parse_sets

    settings = parse_sets(sets)
    for name in settings.keys() - {"data"}:
        raise UserError(
            f"--set {name}: only settings of the data set are taken, such as data.val_share=0.2"
        )
    section = settings.get("data", {})
    if not isinstance(section, dict) or section.keys() & {"name", "dir"}:
        raise UserError("--set data: name the data set with --data, its folder with --data-dir")
    return section


def _given_runs(texts: tuple[str, ...]) -> dict[str, str]:
    given = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise UserError(f"--run {text}: expected MODEL=RUN, such as --run ldm=runs/a")
        if name in given:
            raise UserError(
                f"--run {text}: '{name}' is there already; give one of them another name"
            )
        given[name] = path
    return given


@click.command(cls=Command)
@click.argument("a", type=PlainPath())
@click.argument("b", type=PlainPath())
@click.option("--force", is_flag=True, help="Print scores side by side that must not be compared.")
@json_option
def diff(a: Path, b: Path, force: bool, as_json: bool) -> None:
    """Say how the results A and B differ: first the protocol, then the scores.

    A and B are results.json files, or folders that hold one. Scores under different protocols are
    not printed without --force; --json has all of them.
    """
    from t2i.benchmarks.report.diff import compare

    difference = compare(a, b)
    if as_json:
        answer_json(difference.document())
    else:
        difference.show(console(), force)


@click.command(cls=Command)
@click.argument("name")
@run_option(
    "--run",
    required=True,
    metavar="RUN",
    help="The trained model.",
)
@protocol_option
@click.option(
    "--samplers", "names", metavar="A,B", help="Samplers (default: all that draw from its family)."
)
@click.option(
    "--steps",
    default="5,10,25,50",
    show_default=True,
    metavar="N,M",
    help="Numbers of sampling steps.",
)
@samples_option
@data_dir_option
@path_option(
    "--out",
    metavar="DIR",
    help="Folder (default: bench-samplers in RUN).",
)
@json_option
def samplers(
    name: str, run: str, protocol: str | None, names: str | None, steps: str, samples: int | None,
    data_dir: Path | None, out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Score a run with each sampler and number of steps, on the same noise.

    Prints a table, and writes samplers.json and samplers.svg. NAME is the benchmark that gives
    captions and scores.

    \b
    t2i bench samplers shapes --run runs/RUN --steps 5,10,25,50 --samples 200
    """
    counts = [int(text) for text in steps.split(",") if text.strip().isdecimal()]
    if not counts or min(counts) < 1 or len(counts) != len(steps.split(",")):
        raise UserError(f"--steps {steps}: expected numbers with commas between, such as 5,10,25")
    from t2i.benchmarks.speed.samplers import compare_samplers

    found = compare_samplers(
        name, run, protocol=protocol, samplers=listed(names, "samplers"), steps=counts,
        samples=samples, out=out,
        data_dir=data_dir,
    )  # fmt: skip
    if as_json:
        answer_json(found.document())
    else:
        found.show(console())


@click.command(cls=Command)
@click.option("--models", metavar="A,B", help="Models to time (default: all).")
@click.option("--preset", default="tiny", show_default=True, help="Preset of the models.")
@click.option(
    "--blocks",
    type=click.IntRange(2),
    default=8,
    show_default=True,
    help="Blocks of 25 steps timed.",
)
@path_option(
    "--out",
    metavar="FILE",
    help="Write the figures to this file, as JSON.",
)
@json_option
def speed(models: str | None, preset: str, blocks: int, out: Path | None, as_json: bool) -> None:
    """Time each model's training steps and sampling.

    The table also says how much time the engine adds to a bare loop over the same steps.
    """
    from t2i.benchmarks.speed.speed import measure_speed

    speeds = measure_speed(listed(models), preset=preset, blocks=blocks, out=out)
    if as_json:
        answer_json(speeds.document())
    else:
        speeds.show(console())
