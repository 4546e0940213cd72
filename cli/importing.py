"""`t2i import`: a run made of weights that a paper's authors released."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from t2i.cli.command import Command, json_option, path_option
from t2i.cli.output import answer, answer_json, note
from t2i.core.errors import UserError
from t2i.core.io.terminal import printable


@click.command("import", cls=Command)
@click.option(
    "--model", metavar="M", help="Model whose authors' files these are ('t2i models' lists them)."
)
@click.option(
    "--preset",
    metavar="P",
    help="What they were trained as.  [default: the model's first after tiny]",
)
@click.option(
    "--set", "sets", multiple=True, metavar="K=V", help="Any setting of the model; may be repeated."
)
@path_option(
    "--out",
    metavar="RUN",
    help="New folder (default: under runs/).",
)
@click.argument("files", nargs=-1, type=click.Path(), metavar="FILES...")
@json_option
def import_(
    model: str | None, preset: str | None, sets: tuple[str, ...], out: Path | None,
    files: tuple[str, ...],
    as_json: bool,
) -> None:  # fmt: skip
    """Make a run from the weights that a paper's authors released.

    The run can then be sampled and scored like any other. Files are recognised by what is in them,
    and no code in them is run. Each model's README says which files it takes.

    \b
    t2i import --model dfgan --preset cub --out runs/cub \\
        state_epoch_1220.pth text_encoder200.pth captions_DAMSM.pickle
    t2i import --model ldm OWNER/NAME --out runs/sd      # a Stable Diffusion from the hub
    t2i sample --run runs/cub -p "a small red bird with a white belly"
    """
    if model is None:
        raise UserError("say whose weights these are, with --model M ('t2i models' lists them)")
    if not files:
        raise UserError(
            f"name the files of weights: 't2i import --model {model} FILE... --out RUN'"
        )
    from t2i.core.models.importing import default_preset, import_weights, importable
    from t2i.core.models.locating import weights_path

    chosen = preset or default_preset(importable(model))
    if preset is None:
        others = [name for name in importable(model).presets if name != chosen]
        more = f" (others: {', '.join(others)})" if others else ""
        note(f"using preset {chosen}{more}")
    run = import_weights(
        model,
        [weights_path(file) for file in files],
        out,
        preset=chosen,
        sets=sets,
        command=shlex.join(["t2i", *sys.argv[1:]]),
    )
    command = shlex.join(["t2i", "sample", "--run", str(run.path), "-p", "a red bird"])
    if as_json:
        answer_json({
            "run": str(run.path), "model": model, "preset": chosen, "summary": run.summary(),
            "sample": command,
        })  # fmt: skip
        return
    answer(printable(f"run: {run.path}"))
    answer(printable(f"draw: {command}"))
