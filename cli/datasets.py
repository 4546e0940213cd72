"""`t2i datasets`: the data sets there are, and what is in one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from t2i.cli.command import Command, LazyGroup, json_option, path_option
from t2i.cli.output import answer, answer_json, note
from t2i.core.errors import UserError
from t2i.core.io.terminal import printable
from t2i.core.registry.tables import registry

if TYPE_CHECKING:
    from t2i.core.kit.datacheck import DataReport, SplitReport

COMMANDS = {
    "list": ("t2i.cli.tables:datasets", "List the data sets ('t2i datasets' is short for it)."),
    "check": (
        "t2i.cli.datasets:check",
        "Read a data set through, and say what is in it and what is broken.",
    ),
}
SHOWN = 10  # lines of a list; --json has all
EVERY_SECONDS = 10.0

datasets = LazyGroup(
    "datasets", COMMANDS, help="List the data sets; read one through.", bare="list"
)


@click.command(cls=Command)
@click.argument("name")
@path_option("--data-dir", metavar="DIR", help="Folder of the data set.")
@click.option(
    "--image-size", type=click.IntRange(8), metavar="S", help="Size at which images are read."
)
@click.option(
    "--workers", type=click.IntRange(0), default=0, show_default=True, help="Processes that read."
)
@click.option(
    "--set", "sets", multiple=True, metavar="K=V", help="Any setting of the data set; repeatable."
)
@json_option
def check(
    name: str,
    data_dir: Path | None,
    image_size: int | None,
    workers: int,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Read all of the data set NAME, and say what is in it.

    Counts, sizes, captions, duplicates, images that are in two splits, and what is broken. The exit
    code is 2 if a split cannot be read, or if a larger fraction of it than max_broken is broken.

    \b
    t2i datasets check coco --data-dir coco --workers 2
    t2i datasets check imagefolder --data-dir images --json
    """
    registry().datasets[name]  # a misspelt name is told at once, before torch is imported
    from t2i.core.kit.datacheck import check_dataset
    from t2i.core.runs.configure import parse_sets

    own: dict[str, Any] = {
        "dir": None if data_dir is None else str(data_dir),
        "image_size": image_size,
    }
    settings = {key: value for key, value in own.items() if value is not None} | parse_sets(sets)
    choice = registry().datasets.choose(name, settings, "data set")
    report = check_dataset(choice, workers=workers, progress=_progress())
    if as_json:
        answer_json(report.document())
    else:
        _show(report)
    if problems := report.problems():
        more = f" (and {len(problems) - 1} more, above)" if len(problems) > 1 else ""
        raise UserError(f"data set '{name}' cannot be used as it is: {problems[0]}{more}")


def _progress() -> Any:
    """A function that says now and then how far reading is."""
    last = time.monotonic()

    def say(split: str, done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_SECONDS:
            last = time.monotonic()
            note(f"{split}: read {done} of {total} examples")

    return say


def _show(report: DataReport) -> None:
    for split in report.splits:
        for line in _lines(split):
            answer(printable(line) if not line.startswith(" ") else f"  {printable(line)}")
    for first, second, images in report.shared:
        answer(f"in both {first} and {second}: {len(images)} images")
        for line in _some([f"{a} is {b}" for a, b in images]):
            answer(f"  {printable(line)}")


def _lines(split: SplitReport) -> list[str]:
    """A split in words; lines that begin with a space belong to the one above."""
    if split.error:
        return [f"{split.split}: {split.error}"]
    lines = [f"{split.split}: {split.examples} examples, {len(split.broken)} broken"]
    if split.width and split.height:
        modes = ", ".join(f"{mode} {count}" for mode, count in split.modes.items())
        lines.append(
            f" images: width {_spread(split.width)}, height {_spread(split.height)}; modes: {modes}"
        )
        captions = split.captions
        lines.append(
            f" captions: {_spread(captions['per_example'])} an example, "
            f"{_spread(captions['words'])} words each, "
            f"{captions['vocabulary']} different words; {captions['count']} captions, "
            f"{captions['different']} "
            f"different, {captions['empty']} without a word"
        )
    if split.duplicates:
        lines.append(f" the same file more than once: {len(split.duplicates)}")
        lines += [f" - {line}" for line in _some([", ".join(keys) for keys in split.duplicates])]
    return lines + [f" broken: {line}" for line in _some([str(error) for error in split.broken])]


def _spread(values: Sequence[float]) -> str:
    """ "0 / 1 / 2": least, median, greatest; one number if they are the same."""
    return " / ".join(f"{value:g}" for value in (values if len(set(values)) > 1 else values[:1]))


def _some(lines: Sequence[str]) -> list[str]:
    """The first of many, and how many more there are."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"and {more} more (--json names all)"] if more > 0 else list(lines)
