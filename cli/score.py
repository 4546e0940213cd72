"""`t2i score`: the images of any program, scored against real ones."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from t2i.cli.command import Command, PlainPath, json_option, listed, path_option, registered
from t2i.cli.output import answer_json, console, note
from t2i.core.errors import UserError

EVERY_SECONDS = 10.0


@click.command(cls=Command)
@click.argument("images", type=PlainPath())
@path_option(
    "--reference",
    metavar="REAL",
    help="Real images: a folder, .zip or .npz; or statistics (mu and sigma) in a .npz.",
)
@click.option(
    "--measures",
    metavar="A,B",
    help="Measures, such as fid,kid,isc,prc,clip-score or fid:dinov2 (default: the protocol's).",
)
@click.option(
    "--protocol",
    metavar="P",
    help="Program whose numbers are reproduced: torch-fidelity (default), clean-fid, pytorch-fid.",
)
@click.option(
    "--features",
    metavar="F",
    shell_complete=registered("features"),
    help="Features of the measures that compare two sets ('t2i features').",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="F.K=V",
    help="A setting of features, such as inception.weights=FILE. Repeatable.",
)
@path_option(
    "--captions",
    metavar="FILE",
    help="Captions: one a line, or a .csv, .jsonl or .json that names the images.",
)
@click.option(
    "--recursive/--no-recursive",
    default=None,
    help="Read subfolders (default: as the protocol's program does).",
)
@click.option(
    "--on-white",
    is_flag=True,
    help="Lay transparent images on white (default: drop the transparency, as the programs do).",
)
@path_option(
    "--save-statistics",
    "save",
    metavar="OUT.npz",
    help="Write mean and covariance of IMAGES, to be a --reference later.",
)
@click.option("--device", metavar="D", help="Device, such as cpu or cuda:1 (default: the best).")
@json_option
def score(
    images: Path, reference: Path | None, measures: str | None, protocol: str | None,
    features: str | None, sets: tuple[str, ...], captions: Path | None, recursive: bool | None,
    on_white: bool, save: Path | None, device: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Score IMAGES, made by any program, against real ones.

    IMAGES is a folder, a .zip, or an array of images in a .npz. Of a folder that 't2i sample'
    wrote, the captions are known.

    \b
    t2i score samples/mine --reference photos
    t2i score samples.npz --reference photos.npz --protocol clean-fid --measures fid
    t2i score photos --save-statistics photos.npz
    """
    from t2i.benchmarks.score.images.score import ScoreRequest, score_images
    from t2i.core.devices import named_device
    from t2i.core.runs.configure import parse_sets

    found = score_images(
        ScoreRequest(
            images, reference, protocol=protocol, measures=listed(measures, "measures"),
            features=features, settings=_settings(parse_sets(sets)), captions=captions,
            recursive=recursive, on_white=on_white, save=save, device=named_device(device),
            progress=_progress(),
        )
    )  # fmt: skip
    if as_json:
        answer_json(found.document())
    else:
        found.show(console())


def _settings(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Check that every setting is of some features."""
    for name, value in document.items():
        if not isinstance(value, dict):
            raise UserError(
                f"--set {name}={value}: name the features too, such as inception.weights=FILE"
            )
    return document


def _progress() -> Any:
    """A function that says now and then how far reading is."""
    last = time.monotonic()

    def say(what: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_SECONDS:
            last = time.monotonic()
            note(f"{what}: {done} of {total}")

    return say
