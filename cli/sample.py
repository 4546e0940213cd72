"""`t2i sample`: sample images from a trained model."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from t2i.cli import progress
from t2i.cli.again import again
from t2i.cli.command import (
    Command,
    device_option,
    json_option,
    path_option,
    registered,
    run_option,
)
from t2i.cli.output import answer, answer_json, note, speaks
from t2i.cli.sample_options import Further, further_options
from t2i.core.errors import UserError
from t2i.core.io.terminal import printable
from t2i.core.registry.tables import registry

if TYPE_CHECKING:
    from t2i.core.models.best import BestOf
    from t2i.core.models.enlarging import Upsampling
    from t2i.core.models.locating import Located
    from t2i.core.models.model import Model
    from t2i.core.models.wanted import Several


@click.command(cls=Command)
@click.option(
    "--model",
    metavar="M",
    shell_complete=registered("models"),
    help="Use the newest complete run of this model under runs/.",
)
@run_option(
    "--run",
    metavar="RUN",
    help="Use this run or checkpoint, 'latest', a name on the hub, or another project's folder.",
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
    "steps",
    type=click.IntRange(1),
    metavar="N",
    help="Number of sampling steps.",
)
@click.option(
    "--guidance", type=float, metavar="G", help="Scale of classifier-free guidance; 1 is none."
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="K=V",
    help="Another setting of the sampler, or config=FOLDER. Repeatable.",
)
@click.option(
    "-p", "--prompt", "texts", multiple=True, metavar="TEXT", help="A caption. Repeatable."
)
@path_option(
    "--prompts",
    metavar="FILE",
    help="Text file with one caption a line.",
)
@further_options
@path_option(
    "--features",
    metavar="FILE",
    help="Sentence vectors instead of captions: .npy or .safetensors, (N, D), a row an image.",
)
@run_option(
    "--guide",
    metavar="RUN",
    help="Steer by this run of a guide (classifier guidance).",
)
@click.option(
    "--guide-scale",
    type=float,
    default=1.0,
    show_default=True,
    metavar="S",
    help="Scale of the guide's gradient.",
)
@run_option(
    "--upsample",
    metavar="RUN",
    multiple=True,
    help="Enlarge the images by this run of an upsampler. Repeatable.",
)
@click.option(
    "--lora",
    "loras",
    metavar="FILE[:WEIGHT]",
    multiple=True,
    help="Merge a LoRA file into the weights, times WEIGHT (1). Repeatable: several add up.",
)
@click.option(
    "-n",
    "count",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Images of each caption.",
)
@path_option(
    "--interpolate",
    nargs=2,
    metavar="A B",
    help="Sample -n N images on the way from one image file to the other, with at most one -p.",
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
    help="Images sampled at once (default: by image size).",
)
@device_option
@path_option(
    "--out",
    metavar="DIR",
    help="Folder (default: a new one under samples/).",
)
@json_option
def sample(
    model: str | None, run: str | None, sampler: str | None, steps: int | None,
    guidance: float | None, sets: tuple[str, ...], texts: tuple[str, ...], prompts: Path | None,
    features: Path | None, guide: str | None, guide_scale: float, upsample: tuple[str, ...],
    loras: tuple[str, ...], count: int, interpolate: tuple[Path, Path] | None, seed: int,
    batch_size: int | None,
    device: str | None,
    out: Path | None, as_json: bool, further: Further,
) -> None:  # fmt: skip
    """Sample images from a trained model, into a folder.

    The folder has PNG files, all of them in grid.png, and samples.jsonl, which says what each one
    is. The same command with the same --out adds what is missing. On a terminal, without a caption,
    t2i asks for captions one after the other, and the model stays loaded.

    'torchrun --nproc-per-node N -m -- t2i.cli sample ...' shares the work among N processes.

    \b
    t2i sample --model ldm -p "a red circle" -n 4
    t2i sample --model ldm                       # asks for captions
    t2i sample --run runs/RUN --sampler ddim --steps 50 --guidance 3 --prompts captions.txt
    t2i sample --run runs/RUN --guide runs/GUIDE --guide-scale 3 -p "a red circle"
    t2i sample --run runs/RUN --upsample runs/UPSAMPLER --set upsample.steps=8 -p "a red circle"
    t2i sample --run runs/RUN --interpolate A.png B.png -n 8 --guidance 1
    t2i sample --run latest -p "a red circle"                 # the newest complete run
    t2i sample --run runs/RUN/checkpoints/step-300 -p "a red circle"
    t2i sample --run OWNER/NAME -p "a red bird"               # a Stable Diffusion from the hub
    t2i sample --run runs/RUN --image A.png --strength 0.6 -p "a blue circle"
    t2i sample --run runs/RUN --negative "a square" --width 64 --height 32 -p "a red circle"
    t2i sample --again samples/RUN/0000-000.png
    t2i sample --run FOLDER --lora style.safetensors:0.8 --lora dog.safetensors -p "sks dog"
    t2i sample --run runs/RUN --best-of 8 -p "a red circle"   # 8 candidates each: keep the best
    t2i sample --run /models/stable-diffusion-v1-5 -p "a red bird"    # a folder of diffusers
    t2i sample --run v1-5.safetensors --set config=/models/stable-diffusion-v1-5 -p "a bird"
    """
    if further.again is not None:
        load_any = partial(_load_any, device=device)
        again(further, run, guide, out, load_any, as_json, upsample, loras)
        return
    if (model is None) == (run is None):
        raise UserError("say which model to use, with one of --model M and --run RUN")
    asks = not (texts or prompts or features or interpolate) and sys.stdin.isatty()
    if not asks:
        _check_what_to_sample(texts, prompts, features, interpolate)
    if sampler is not None:
        registry().samplers[sampler]  # a misspelt name is an error before torch is imported
    if guide is None and guide_scale != 1:
        raise UserError("--guide-scale is the scale of a guide's gradient: give --guide RUN, too")
    if interpolate is not None and guide is not None:
        raise UserError("--interpolate samples between two images: leave out --guide")
    if interpolate is not None and upsample:
        raise UserError("--interpolate samples between two images: leave out --upsample")
    if interpolate is not None and further.given():
        raise UserError(f"--interpolate samples between two images: leave out {further.given()[0]}")
    further.check_judge()
    if features is not None and further.best_of is not None:
        raise UserError("--best-of ranks images by their captions: leave out --features")
    from t2i.core.families.cascade import Enlarging
    from t2i.core.io.processes import Group
    from t2i.core.models import prompts as files
    from t2i.core.models import samples
    from t2i.core.models.loading import find, load, opening_settings
    from t2i.core.models.sample_folder import samples_folder
    from t2i.core.runs.configure import parse_sets
    from t2i.core.runs.folder import newest_run

    captions = [*texts, *(files.read_prompts(prompts) if prompts else [])]
    wanted = files.read_features(features) if features else captions
    names = [f"{features.name}[{row}]" for row in range(len(wanted))] if features else ()
    group = Group()
    origin = group.first(lambda: find(str(run) if model is None else newest_run(model).path))
    source = Path(origin.name)
    opening, settings = opening_settings(parse_sets(sets))
    names_of = ["upsample" if not i else f"upsample{i + 1}" for i in range(len(upsample))]
    enlarging = [settings.pop(name, {}) for name in names_of]
    whole = load(origin, device, settings=opening)
    _merge_loras(whole, loras)
    loaded = _up_to(whole, further.part)
    enlarges = isinstance(loaded.generator, Enlarging)
    level = settings.pop("augmentation", None) if enlarges else None
    choice = loaded.sampler(sampler, steps=steps, guidance=guidance, settings=settings)
    more: dict[str, Any] = {
        "n": count,
        "sampler": choice,
        "batch_size": batch_size,
        "run": source,
        "group": group,
    }
    if interpolate is not None:
        _announce(_images(count), source, choice.name)
        caption = captions[0] if captions else ""
        with samples_folder(loaded.config.model, out, group) as folder:
            records = samples.write_interpolation(loaded, *interpolate, caption, folder, **more)
            _conclude(folder, records, as_json)
        return
    options, best = further.of(loaded, level), further.best(loaded)
    more |= {"seed": seed, "options": options, "sources": further.sources, "names": names}
    more |= {"best": best, "part": further.part}
    if guide is not None:
        steers = group.first(lambda: find(guide))
        more["guide"] = samples.Steering(load(steers, device), guide_scale, Path(steers.name))
    more["upsample"] = [
        _upsampler(group.first(partial(find, text)), device, given, name)
        for text, given, name in zip(upsample, enlarging, names_of, strict=True)
    ]
    with samples_folder(loaded.config.model, out, group) as folder:
        for number, batch in enumerate(_asked() if asks else [wanted], 1):
            place = folder / f"{number:03d}" if asks else folder
            _announce(_work(len(batch) * count, best), source, choice.name)
            _warn(loaded, batch, options.negative, source)
            with progress.images() if speaks() else nullcontext() as show:
                if show is not None:
                    more |= {"progress": show.images, "steps": show.steps}
                try:
                    records = samples.write_samples(loaded, batch, place, **more)
                except KeyboardInterrupt as error:
                    error.add_note(f"the same command with --out {place} goes on")
                    raise
            _conclude(place, records, as_json)


def _asked() -> Iterator[list[str]]:
    """Ask for one caption after the other, until an empty line or the end of the input."""
    with suppress(EOFError):
        while text := input("caption (empty: stop)> ").strip():
            yield [text]


def _merge_loras(model: Model, loras: Sequence[str]) -> None:
    """Merge LoRA files into the weights of a model, and say how much of each is used."""
    from t2i.core.models.lora.files import parse_lora

    for text in loras:
        merged = model.lora(*parse_lora(text))
        if speaks():
            note(merged.told)


def _up_to(model: Model, part: str | None) -> Model:
    """Return the model, or its beginning up to a part."""
    if part is None:
        return model
    beginning = model.up_to(part)
    if beginning is None:
        raise UserError(f"part '{part}' samples no images: name a later one with --part")
    return beginning


def _upsampler(place: Located, device: str | None, given: Any, name: str) -> Upsampling:
    """Load an upsampler with its settings: `sampler`, `augmentation` and those of the sampler."""
    from t2i.core.models.enlarging import Upsampling
    from t2i.core.models.loading import load, opening_settings

    if not isinstance(given, dict):
        raise UserError(f"--set {name}={given}: its settings are named, such as {name}.steps=8")
    opening, settings = opening_settings(given)
    sampler, level = settings.pop("sampler", None), settings.pop("augmentation", None)
    if level is not None and (isinstance(level, bool) or not isinstance(level, int | float)):
        raise UserError(f"--set {name}.augmentation={level}: a number between 0 and 1")
    model = load(place, device, settings=opening)
    choice = model.sampler(None if sampler is None else str(sampler), settings=settings)
    return Upsampling(model, choice, level, Path(place.name))


def _load_any(source: Path, device: str | None) -> Model:
    from t2i.core.models.loading import load

    return load(source, device)


def _warn(model: Model, prompts: Several, negative: Sequence[str], source: Path) -> None:
    """Say what the model does not read of the captions."""
    from t2i.core.interfaces.text import TextFeatures
    from t2i.core.models.reading import example_captions, warnings_of

    if isinstance(prompts, TextFeatures) or not speaks():
        return
    captions = [*prompts, *filter(None, negative)]
    for sentence in warnings_of(model.text_encoder, captions, example_captions(source)):
        note(f"warning: {sentence}")


def _announce(what: str, source: Path, sampler: str) -> None:
    if speaks():
        note(f"sampling {what} from {source} with {sampler}")


def _work(count: int, best: BestOf | None) -> str:
    """Say in words what is sampled, and what candidates cost."""
    if best is None:
        return _images(count)
    return (
        f"{_images(count)}, each the best of {best.candidates} by {best.judge.name} "
        f"({_images(count * best.candidates)} in all, {best.candidates} times the work),"
    )


def _conclude(folder: Path, records: Sequence[object], as_json: bool) -> None:
    """Print where the images are."""
    sheet = folder / "grid.png"
    if not speaks():
        return
    if as_json:
        answer_json({"out": str(folder), "grid": str(sheet), "samples": records})
        return
    answer(printable(f"{_images(len(records))} in {folder}; all of them in {sheet}"))


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def _check_what_to_sample(
    texts: tuple[str, ...],
    prompts: Path | None,
    features: Path | None,
    interpolate: tuple[Path, Path] | None,
) -> None:
    """Raise a UserError unless the options say in one way what to sample."""
    captioned = bool(texts) or prompts is not None
    if not captioned and interpolate is None and features is None:
        raise UserError(
            "say what to sample, with -p TEXT (repeatable), --prompts FILE or --features FILE"
        )
    if features is not None and (captioned or interpolate is not None):
        raise UserError("--features replaces captions: leave out -p, --prompts and --interpolate")
    if interpolate is not None and (len(texts) > 1 or prompts is not None):
        raise UserError(
            "--interpolate takes one caption: give at most one -p TEXT, and no --prompts"
        )
