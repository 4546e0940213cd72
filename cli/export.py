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
@path_option("--out", metavar="FOLDER", help="New folder; with --lora also a .safetensors file.")
@click.option("--lora", is_flag=True, help="Write the adapters of a run that --lora trained.")
@click.option(
    "--layout",
    type=click.Choice(["diffusers", "kohya"]),
    default="diffusers",
    show_default=True,
    help="Names in the LoRA file.",
)
@json_option
def export(
    model: str | None, run: str | None, out: Path | None, lora: bool, layout: str, as_json: bool
) -> None:  # fmt: skip
    """Write a run in diffusers' layout, for DiffusionPipeline.from_pretrained(FOLDER).

    The pipeline makes the same images from the same noise. A setting that it cannot express is an
    error; each model's README lists them. A run that trained adapters is written with its base, or
    with --lora as a LoRA file without it.

    \b
    t2i export --run runs/RUN --out FOLDER
    t2i export --run runs/RUN --lora --out FOLDER     # pytorch_lora_weights.safetensors in it
    t2i export --run runs/RUN --lora --layout kohya --out dog.safetensors
    """
    if (model is None) == (run is None):
        raise UserError("say what to export, with one of --model M and --run RUN")
    if out is None:
        raise UserError("say where to, with --out FOLDER")
    from t2i.core.io.folders import check_free
    from t2i.core.models.loading import export as export_model
    from t2i.core.models.loading import find, load
    from t2i.core.models.lora_export import export_lora
    from t2i.core.runs.folder import newest_run

    check_free(out)
    source = newest_run(model).path if model is not None else str(run)
    if lora:
        file = export_lora(find(source), out, layout)
        if as_json:
            answer_json({"out": str(file), "files": [file.name]})
        else:
            answer(printable(f"LoRA in {file}"))
        return
    export_model(load(source, "cpu"), out)
    files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    if as_json:
        answer_json({"out": str(out), "files": files})
    else:
        answer(printable(f"{len(files)} files in {out}"))
