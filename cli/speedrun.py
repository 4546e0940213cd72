"""`t2i bench speedrun`: time until a fixed score, and a file of records."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from t2i.cli.bench import data_dir_option, protocol_option, samples_option
from t2i.cli.command import Command, json_option, listed, path_option
from t2i.cli.output import answer_json, console
from t2i.core.errors import UserError

PAGE = Path("docs/speedruns.md")
"""The records of this project, in its repository."""

BESIDE = "records.md"
"""Name of the file of records in OUT, elsewhere."""

AUTO = "auto"
"""Value of --record without a file."""


@click.command(cls=Command)
@click.option("--benchmark", metavar="NAME", help="Benchmark (default: the first with marks).")
@protocol_option
@click.option(
    "--models", "--model", "models", metavar="A,B",
    help="Models to time, or 'all' but upsamplers (default: the benchmark's).",
)  # fmt: skip
@click.option("--preset", metavar="P", help="Preset of the models (default: the protocol's).")
@click.option(
    "--set", "sets", multiple=True, metavar="K=V",
    help="A setting of the models that replaces the preset's. Repeatable.",
)  # fmt: skip
@click.option(
    "--target", metavar="N,M",
    help="Scores to reach (default: the benchmark's, by the family of the model).",
)  # fmt: skip
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), metavar="T",
    help="Training budget of each model, and so the limit (default: the benchmark's).",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(1), metavar="N",
    help="The same in steps, for exact repeatability.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Training seed.")
@click.option(
    "--every", type=click.FloatRange(0, min_open=True), metavar="S",
    help="Seconds of training between two scores; steps, with --steps (default: a twentieth).",
)  # fmt: skip
@samples_option
@data_dir_option
@path_option("--out", metavar="DIR", help="Folder (default: runs/speedrun-NAME).")
@click.option("--note", default="", metavar="TEXT", help="What was changed, for the records.")
@path_option(
    "--record", is_flag=False, flag_value=AUTO, metavar="[FILE]",
    help=f"Add a line to a file of records (default: {PAGE} if it is there, else OUT/{BESIDE}).",
)  # fmt: skip
@json_option
def speedrun(
    benchmark: str | None, protocol: str | None, models: str | None, preset: str | None,
    sets: tuple[str, ...], target: str | None, minutes: float | None, steps: int | None, seed: int,
    every: float | None, samples: int | None, data_dir: Path | None, out: Path | None, note: str,
    record: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Train models until a fixed share of the captions is right.

    Says how many minutes and how much arithmetic of training that took. Set-up, sampling and
    scoring are not counted. The same command again goes on where it stopped.

    \b
    t2i bench speedrun --model ldm --minutes 10
    t2i bench speedrun --model dfgan --minutes 10 --set lr=0.002 --note "higher lr" --record
    """
    targets = _numbers(target)
    from t2i.benchmarks.speedrun.plan import default_out
    from t2i.benchmarks.speedrun.request import SpeedrunRequest
    from t2i.benchmarks.speedrun.runner import run_speedrun

    out = out or default_out(benchmark)
    if record == Path(AUTO):
        record = PAGE if PAGE.is_file() else out / BESIDE
    results = run_speedrun(
        SpeedrunRequest(
            benchmark, protocol=protocol, models=listed(models), preset=preset, sets=sets,
            targets=targets, minutes=minutes, steps=steps, seed=seed, every=every, samples=samples,
            data_dir=data_dir, out=out, note=note, record=record,
            command=shlex.join(["t2i", *sys.argv[1:]]),
        )
    )  # fmt: skip
    if as_json:
        answer_json(results.document())
    else:
        results.show(console())


def _numbers(text: str | None) -> tuple[float, ...]:
    """Read the scores of --target; none if it is not given."""
    if text is None:
        return ()
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(abs(number) < float("inf") for number in found):
        raise UserError(f"--target {text}: expected a score, or several such as 50,85")
    return found
