"""`t2i train`: train a model, or finish an interrupted run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from t2i.cli.command import (
    Command,
    NumberOrAuto,
    device_option,
    json_option,
    path_option,
    registered,
    run_option,
)
from t2i.cli.output import answer, answer_json, note, speaks
from t2i.core.errors import UserError
from t2i.core.io import launched
from t2i.core.io.terminal import printable
from t2i.core.registry.specs import AUTO
from t2i.core.registry.tables import registry

if TYPE_CHECKING:
    from t2i.core.runs.configure import RunConfig
    from t2i.core.runs.folder import Run

ALONE = ("resume", "on_nan", "as_json", "device", "steps", "minutes", "data_dir")
"""Parameters that may stand beside --resume. The run has all other settings."""

SLURM = ("slurm", "nodes", "gpus_per_node", "limit", "sbatch")
"""Parameters that describe a job of SLURM."""


@click.command(cls=Command)
@click.option(
    "--model",
    metavar="M",
    shell_complete=registered("models"),
    help="Model to train ('t2i models' lists them).",
)
@click.option(
    "--data",
    metavar="D",
    shell_complete=registered("datasets"),
    help="Data set (default: the preset's).",
)
@path_option(
    "--data-dir",
    metavar="DIR",
    help="Folder of the data set; with --resume, where it is now.",
)
@click.option(
    "--preset",
    metavar="P",
    help="Named settings of the model, or 'auto': by image size and machine.  [default: tiny]",
)
@click.option(
    "--steps",
    type=click.IntRange(1),
    metavar="N",
    help="Training budget in optimizer steps, all stages together; with --resume a new total.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    metavar="T",
    help="Training budget in minutes; with --resume a new total.",
)
@click.option(
    "--image-size", type=click.IntRange(8), metavar="N", help="Height and width of the images."
)
@click.option(
    "--batch-size",
    type=NumberOrAuto(),
    metavar="B",
    help="Images in each optimizer step, or 'auto': as many as fit the GPU's memory.",
)
@click.option(
    "--accumulate",
    type=NumberOrAuto(),
    metavar="N",
    help="Parts of a batch, or 'auto': as few as fit. The batch stays as it is.",
)
@device_option
@click.option(
    "--precision",
    type=click.Choice(["no", "bf16", "fp16", "auto"]),
    help="Mixed precision; no is float32, auto takes bf16 where a step is faster.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    metavar="S",
    help="Seed of initial weights, data order and noise.",
)
@click.option(
    "--keep", type=click.IntRange(1), metavar="N", help="Number of newest checkpoints to keep."
)
@click.option(
    "--on-nan",
    type=click.Choice(["stop", "skip"]),
    help="When a loss is NaN or infinite: stop, or skip that update.",
)
@click.option(
    "--track",
    multiple=True,
    metavar="A,B",
    help="Trackers that receive the log too: tensorboard, trackio, wandb, mlflow, ... Repeatable.",
)
@click.option("--encoder", metavar="E", help="Text encoder ('t2i encoders' lists them).")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="K=V",
    help="Any setting, such as encoder.width=64. Repeatable.",
)
@path_option("--config", metavar="FILE", help="YAML file of settings.")
@path_option(
    "--out",
    metavar="RUN",
    help="New folder (default: under runs/).",
)
@click.option(
    "--lora",
    type=click.IntRange(1),
    metavar="RANK",
    help="Train adapters of this rank in place of the weights that --from names. lora.alpha, "
    "lora.targets, lora.text_encoder and others are settings.",
)
@click.option(
    "--low-memory",
    is_flag=True,
    help="Fit a small card, at the cost of time: gradient checkpointing, cached latents and text; "
    "on a GPU bf16, and 8-bit Adam if bitsandbytes is installed. With --from FOLDER also one image "
    "at a time.",
)
@click.option("--dry-run", is_flag=True, help="Print all settings that would be used, and stop.")
@run_option(
    "--resume",
    metavar="RUN",
    help="Finish an interrupted run (its folder or name, or 'latest'); with --minutes or --steps, "
    "train a run for longer.",
)
@run_option(
    "--from",
    "start",
    metavar="RUN|FOLDER|FILE",
    help="Start from the weights that fit: of a run, a Stable Diffusion folder (or another that "
    "'t2i sample --run' opens), OWNER/NAME on the hub; with --model also of a safetensors file. "
    "Without another --model or --preset the settings are theirs too.",
)
@click.option(
    "--slurm",
    is_flag=True,
    help="Write the script RUN.sbatch, which trains on a SLURM cluster, and stop.",
)
@click.option(
    "--nodes", type=click.IntRange(1), metavar="N", help="With --slurm: nodes.  [default: 1]"
)
@click.option(
    "--gpus-per-node",
    type=click.IntRange(1),
    metavar="G",
    help="With --slurm: GPUs of each node.  [default: 1]",
)
@click.option("--time", "limit", metavar="T", help="With --slurm: time limit.  [default: 24:00:00]")
@click.option(
    "--sbatch",
    multiple=True,
    metavar="OPTION",
    help="With --slurm: an option of sbatch, such as --partition=gpu. Repeatable.",
)
@json_option
@click.pass_context
def train(
    ctx: click.Context, model: str | None, data: str | None, data_dir: Path | None,
    preset: str | None,
    steps: int | None, minutes: float | None, image_size: int | None,
    batch_size: int | str | None, accumulate: int | str | None, device: str | None,
    precision: str | None, seed: int | None, keep: int | None,
    on_nan: str | None, track: tuple[str, ...], encoder: str | None, sets: tuple[str, ...],
    config: Path | None, out: Path | None, lora: int | None, low_memory: bool,
    dry_run: bool, resume: str | None, start: str | None, slurm: bool, nodes: int | None,
    gpus_per_node: int | None, limit: str | None, sbatch: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Train a model.

    Settings come from the preset, then --config, then the options here, then --set. Each overrides
    the one before. 't2i settings MODEL' says what each setting does.

    \b
    t2i train --model dfgan                      # preset tiny, on the embedded data set
    t2i train --model ldm --minutes 5 --out runs/a --set lr=1e-4
    t2i train --model ldm --data-dir MY_IMAGES   # what is in the folder decides the data set
    t2i train --model ldm --data-dir MY_IMAGES --preset auto   # fits images and machine
    t2i train --model ldm --dry-run > ldm.yaml   # settings to edit, for --config ldm.yaml
    t2i train --resume runs/a                    # after an interruption
    t2i train --resume runs/a --minutes 10       # a longer budget: 10 minutes in all
    t2i train --from runs/a --data-dir OTHER     # a new run that starts from its weights
    t2i train --from FOLDER --data-dir MY_IMAGES # tune the Stable Diffusion in a folder
    t2i train --from FOLDER --lora 16 --data-dir MY_IMAGES --set lr=1e-4    # a LoRA for it
    t2i train --model ldm --out runs/a --slurm --nodes 2 --gpus-per-node 8   # writes runs/a.sbatch
    """
    from t2i.core.models.locating import located_run

    if not slurm:
        _refuse_without_slurm(ctx)
    elif resume is not None:
        _refuse_beside_resume(ctx, (*SLURM, "resume", "as_json"))
        _write_slurm(ctx, located_run(resume).path, None, as_json)
        return
    if resume is not None:
        _refuse_beside_resume(ctx, ALONE)
        from t2i.benchmarks.run.in_training import training_scores
        from t2i.core.engine import resume as go_on

        path = located_run(resume).path
        done = go_on(
            path, on_nan=on_nan, steps=steps, minutes=minutes, device=device, data_dir=data_dir,
            examining=training_scores,
        )  # fmt: skip
        _conclude(done, as_json)
        return
    if model is None and start is None:
        raise UserError(
            "say what to train, with --model M ('t2i models' lists them), --resume RUN or --from "
            "RUN"
        )
    from t2i.core.settings.layers import option_layer

    engine = {
        "steps": steps, "minutes": minutes, "image_size": image_size, "batch_size": batch_size,
        "accumulate": accumulate, "precision": precision, "seed": seed, "keep": keep,
        "on_nan": on_nan, "track": ",".join(track) if track else None,
        "lora": None if lora is None else {"rank": lora},
    }  # fmt: skip
    options = option_layer(engine, data=data, data_dir=data_dir, encoder=encoder)
    if model is not None:
        registry().models[model]  # a misspelt name is told at once, before torch is imported
    from t2i.core.engine.automatic import Training, resolve
    from t2i.core.models.origin import origin_of

    origin, left = origin_of(start, model, sets) if start else (None, list(sets))
    wanted = Training(
        model,
        preset,
        options,
        sets=left,
        config_file=config,
        device=device,
        start=origin,
        low_memory=low_memory,
    )
    resolved = resolve(wanted, note if speaks() else _silent)
    from t2i.benchmarks.run.in_training import named_scores, training_scores

    named_scores(resolved)  # --dry-run and --slurm refuse misspelt scores too
    if dry_run:
        _print_settings(resolved, as_json)
        return
    if slurm:
        _write_slurm(ctx, out, resolved, as_json)
        return
    if out is None and launched.several():
        raise UserError("several processes train together: name one folder for all with --out")
    from t2i.core.engine import train as begin
    from t2i.core.runs.folder import new_run

    if preset is None and start is None and speaks():
        _name_presets(resolved)
    command = shlex.join(["t2i", *sys.argv[1:]])
    with new_run(resolved, out) as folder:
        run = begin(
            resolved, folder, command=command, device=device, start=origin,
            examining=training_scores,
        )  # fmt: skip
    _conclude(run, as_json)


def _refuse_without_slurm(ctx: click.Context) -> None:
    for parameter in ctx.command.params:
        if parameter.name in SLURM and _is_given(ctx, parameter):
            raise UserError(f"{parameter.opts[0]} belongs to --slurm: add --slurm, or leave it out")


def _write_slurm(
    ctx: click.Context, run: Path | None, resolved: RunConfig | None, as_json: bool
) -> None:
    """Write RUN.sbatch, and print how it is submitted."""
    from t2i.core.runs.slurm import Job, write_slurm_script

    if run is None:
        raise UserError("--slurm: name the run's folder, which all nodes share, with --out")
    given = {name: ctx.params[name] for name in SLURM[1:] if ctx.params[name]}
    names = {"gpus_per_node": "gpus", "limit": "time", "sbatch": "options"}
    job = Job(**{names.get(name, name): value for name, value in given.items()})
    if resolved is not None:
        resolved.settings.check_shared(job.processes)
    script = write_slurm_script(job, run, _given(ctx))
    command = shlex.join(["sbatch", str(script)])
    if as_json:
        answer_json({"script": str(script), "submit": command})
        return
    answer(printable(f"script: {script}"))
    answer(printable(f"submit it with: {command}"))


def _given(ctx: click.Context) -> list[str]:
    """Return the command's arguments, without those that belong to --slurm."""
    words: list[str] = []
    for parameter in ctx.command.params:
        value = ctx.params.get(str(parameter.name))
        if parameter.name in (*SLURM, "as_json") or not _is_given(ctx, parameter):
            continue
        if value is True:
            words.append(parameter.opts[0])
            continue
        for each in value if isinstance(value, tuple) else (value,):
            words += [parameter.opts[0], str(each)]
    return words


def _is_given(ctx: click.Context, parameter: click.Parameter) -> bool:
    source = ctx.get_parameter_source(str(parameter.name))
    return bool(source == ParameterSource.COMMANDLINE)


def _silent(text: str) -> None:
    """Print nothing: another process of the group prints it."""


def _refuse_beside_resume(ctx: click.Context, allowed: Sequence[str]) -> None:
    given = [
        parameter.opts[0]
        for parameter in ctx.command.params
        if parameter.name not in allowed and _is_given(ctx, parameter)
    ]
    if given:
        raise UserError(
            f"--resume goes on with the run's own settings: leave out {', '.join(given)}"
        )


def _print_settings(config: RunConfig, as_json: bool) -> None:
    from t2i.core.runs.configure import is_there

    document = config.dump()
    if not is_there(config.data):
        del document["data"]  # it is still to be named
    if as_json:
        answer_json(document)
        return
    import yaml

    answer(yaml.safe_dump(document, sort_keys=False).rstrip())


def _name_presets(config: RunConfig) -> None:
    others = [name for name in registry().models[config.model].presets if name != config.preset]
    note(f"using preset {config.preset} (others: {', '.join([*others, AUTO])})")


def _conclude(run: Run, as_json: bool) -> None:
    """Print where everything is."""
    if not speaks():
        return
    config = run.config()
    images = sorted(run.samples.glob("step-*.png"), key=lambda path: path.stat().st_mtime_ns)
    draws = registry().draws(registry().models[config.model].family)
    whose = ["--run", str(run.path)] if draws else ["--run", "OTHER", "--guide", str(run.path)]
    command = shlex.join(["t2i", "sample", *whose, "-p", run.example()])
    if as_json:
        answer_json({
            "run": str(run.path), "model": config.model, "preset": config.preset,
            "data": config.data.name,
            "pictures": [str(path) for path in images], "summary": run.summary(), "sample": command,
        })  # fmt: skip
        return
    answer(printable(f"run: {run.path}"))
    if images:
        answer(printable(f"images: {images[-1]}"))
    answer(printable(f"{'draw more' if draws else 'steer another model by it'}: {command}"))
