"""`t2i sample`: images from a trained model."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import click

from t2i.cli import progress
from t2i.cli.command import Command, json_option, registered
from t2i.cli.output import answer, answer_json, note, speaks
from t2i.core.errors import UserError
from t2i.core.io.terminal import printable
from t2i.core.registry.tables import registry


@click.command(cls=Command)
@click.option(
    "--model",
    metavar="M",
    shell_complete=registered("models"),
    help="Draw from the newest complete run of this model under runs/.",
)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Draw from this run, or from another project's files.",
)
@click.option(
    "--sampler",
    metavar="S",
    shell_complete=registered("samplers"),
    help="Sampler (default: the model's own).",
)
@click.option(
    "--steps",
    "--sampling-steps",
    "sampling_steps",
    type=click.IntRange(1),
    metavar="N",
    help="Steps of the sampler.",
)
@click.option(
    "--guidance", type=float, metavar="G", help="Scale of classifier-free guidance; 1 is none."
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="K=V",
    help="Another setting of the sampler, or config=FOLDER; may be repeated.",
)
@click.option(
    "-p", "--prompt", "texts", multiple=True, metavar="TEXT", help="What to draw; may be repeated."
)
@click.option(
    "--prompts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Text file with one prompt a line.",
)
@click.option(
    "--features",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw for these sentence vectors instead of prompts: .npy or .safetensors, (N, D), a row "
    "an image.",
)
@click.option(
    "--guide",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Steer by this run of a guide (classifier guidance).",
)
@click.option(
    "--guide-scale",
    type=float,
    default=1.0,
    show_default=True,
    metavar="S",
    help="Of the guide's gradient.",
)
@click.option(
    "-n",
    "count",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Images of each prompt.",
)
@click.option(
    "--interpolate",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="A B",
    help="Draw N images on the way from one image file to the other (-n N; with at most one -p "
    "TEXT).",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Seed of the noise.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(1),
    metavar="B",
    help="Images drawn at once (default: by size).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder (default: a new one under samples/).",
)
@json_option
def sample(
    model: str | None, run: Path | None, sampler: str | None, sampling_steps: int | None,
    guidance: float | None,
    sets: tuple[str, ...], texts: tuple[str, ...], prompts: Path | None, features: Path | None,
    guide: Path | None, guide_scale: float, count: int,
    interpolate: tuple[Path, Path] | None, seed: int,
    batch_size: int | None, out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Draw images from a trained model: PNG files, grid.png, and samples.jsonl that says what each
    one is.

    The same command again, with the same --out, draws what is missing. 'torchrun --nproc-per-node N
    -m -- t2i.cli sample ...' spreads it over N processes.

    \b
    t2i sample --model ldm -p "a red circle" -n 4
    t2i sample --run runs/RUN --sampler ddim --sampling-steps 50 --guidance 3 --set eta=0.5
    --prompts captions.txt t2i sample --run runs/RUN --guide runs/GUIDE --guide-scale 3 -p "a red
    circle" t2i sample --run runs/RUN --interpolate A.png B.png -n 8 --guidance 1 t2i sample --run
    /models/stable-diffusion-v1-5 -p "a red bird"      # a folder of diffusers' t2i sample --run
    v1-5.safetensors --set config=/models/stable-diffusion-v1-5 -p "a red bird"
    """
    if (model is None) == (run is None):
        raise UserError("say what to draw from, with one of --model M and --run RUN")
    _check_what_to_draw(texts, prompts, features, interpolate)
    if sampler is not None:
        registry().samplers[sampler]  # a misspelt name is an error before torch is imported
    if interpolate is not None and guide is not None:
        raise UserError("--interpolate draws between two images: no --guide steers there")
    from t2i.core.io.processes import Group
    from t2i.core.models.loading import load, opening_settings
    from t2i.core.models.samples import (
        Steering,
        new_samples_path,
        read_features,
        read_prompts,
        write_interpolation,
        write_samples,
    )
    from t2i.core.runs.configure import parse_sets
    from t2i.core.runs.folder import newest_run

    captions = [*texts, *(read_prompts(prompts) if prompts else [])]
    vectors = read_features(features) if features else None
    wanted = captions if vectors is None else vectors
    group = Group()
    source = run if model is None else group.first(lambda: newest_run(model).path)
    assert source is not None
    opening, settings = opening_settings(parse_sets(sets))
    drawn_from = load(source, settings=opening)
    choice = drawn_from.sampler(sampler, steps=sampling_steps, guidance=guidance, settings=settings)
    steering = None if guide is None else Steering(load(guide), guide_scale, guide)
    folder = out or group.first(lambda: new_samples_path(drawn_from.config.model))
    if speaks():
        note(
            f"drawing {max(len(wanted), 1) * count} images from {source} with sampler {choice.name}"
        )
    if interpolate is not None:
        caption = captions[0] if captions else ""
        records = write_interpolation(
            drawn_from, *interpolate, caption, folder, n=count, sampler=choice,
            batch_size=batch_size, run=source,
            group=group,
        )  # fmt: skip
    else:
        with progress.images() if speaks() else nullcontext() as show:
            records = write_samples(
                drawn_from, wanted, folder, n=count, seed=seed, sampler=choice,
                batch_size=batch_size, run=source,
                guide=steering, progress=show, group=group,
            )  # fmt: skip
    if not speaks():
        return
    if as_json:
        answer_json({"out": str(folder), "grid": str(folder / "grid.png"), "samples": records})
    else:
        answer(
            printable(
                f"{len(records)} images in {folder}; all of them at a glance: {folder / 'grid.png'}"
            )
        )


def _check_what_to_draw(
    texts: tuple[str, ...],
    prompts: Path | None,
    features: Path | None,
    interpolate: tuple[Path, Path] | None,
) -> None:
    """UserError unless the options say in one way what to draw."""
    captioned = bool(texts) or prompts is not None
    if not captioned and interpolate is None and features is None:
        raise UserError(
            "say what to draw, with -p TEXT (may be repeated), --prompts FILE or --features FILE"
        )
    if features is not None and (captioned or interpolate is not None):
        raise UserError(
            "--features says what to draw by itself: leave out -p, --prompts and --interpolate"
        )
    if interpolate is not None and (len(texts) > 1 or prompts is not None):
        raise UserError(
            "--interpolate draws for one caption: give at most one -p TEXT, and no --prompts"
        )
