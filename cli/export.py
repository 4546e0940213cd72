"""`t2i export`: a run, written in another project's layout."""

from __future__ import annotations

from pathlib import Path

import click

from t2i.cli.command import Command, json_option, path_option, run_option
from t2i.cli.output import answer, answer_json
from t2i.core.errors import UserError
from t2i.core.io.terminal import printable


@click.command(cls=Command)
@click.option(
    "--model", metavar="M", help="Export the newest complete run of this model under runs/."
)
@run_option("--run", metavar="RUN", help="Export this run or checkpoint.")
@path_option("--out", metavar="FOLDER", help="New folder.")
@json_option
def export(model: str | None, run: str | None, out: Path | None, as_json: bool) -> None:
    """Write a run in diffusers' layout, for DiffusionPipeline.from_pretrained(FOLDER).

    The pipeline makes the same images from the same noise. A setting that it cannot express is an
    error; each model's README lists them.

    \b
    t2i export --run runs/RUN --out FOLDER
    """
    if (model is None) == (run is None):
        raise UserError("say what to export, with one of --model M and --run RUN")
    if out is None:
        raise UserError("say where to, with --out FOLDER")
    from t2i.core.io.files import check_free
    from t2i.core.models.loading import export as export_model
    from t2i.core.models.loading import load
    from t2i.core.runs.folder import newest_run

    check_free(out)
    source = newest_run(model).path if model is not None else str(run)
    export_model(load(source, "cpu"), out)
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    if as_json:
        answer_json({"out": str(out), "files": files})
    else:
        answer(printable(f"{len(files)} files in {out}"))
