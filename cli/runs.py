"""`t2i runs`: the runs that there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from t2i.cli.command import Command, PlainPath, json_option
from t2i.cli.output import answer_json, answer_table, note

if TYPE_CHECKING:
    from t2i.core.runs.listing import ListedRun


@click.command(cls=Command)
@click.argument("folder", type=PlainPath(), required=False, metavar="[FOLDER]")
@json_option
def runs(folder: Path | None, as_json: bool) -> None:
    """List the runs under runs/, or in FOLDER, the newest first.

    Runs inside benchmarks' folders are listed too, with the benchmark's headline score. 't2i info
    RUN' says more about one of them.
    """
    from t2i.core.runs.folder import RUNS
    from t2i.core.runs.listing import list_runs

    place = folder or RUNS
    found = list_runs(place) if folder or place.exists() else []
    if as_json:
        answer_json([run.document() for run in found])
    elif found:
        titles = ["run", "model", "preset", "data", "state", "time", "date", "result"]
        answer_table(titles, [_row(run) for run in found])
    else:
        note(f"no run in {place}{'' if folder else '/'}: 't2i train --model M' makes one")


def _row(run: ListedRun) -> list[str]:
    from t2i.core.io.terminal import duration

    data = f"{run.data} {Path(run.data_dir).name}" if run.data_dir else run.data
    date = run.created[:16].replace("T", " ")
    time = duration(run.seconds) if run.seconds else ""
    return [
        str(run.run.path), run.model, run.preset, data, run.progress, time, date, _result(run)
    ]  # fmt: skip


def _result(run: ListedRun) -> str:
    """The headline score, or else the first two of the last losses."""
    if run.score:
        return f"{run.score[0]} {run.score[1]:.4g}"
    losses = [f"{name} {value:.3g}" for name, value in run.losses.items() if value is not None]
    return ", ".join(losses[:2])
