"""`t2i datasets`: the data sets there are, and what is in one."""

from __future__ import annotations

import shlex
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
_REMEDY = "; --set fit=pad keeps the whole image"

datasets = LazyGroup(
    "datasets", COMMANDS, help="List the data sets; read one through.", bare="list"
)


@click.command(cls=Command)
@click.argument("name", required=False)
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
    name: str | None,
    data_dir: Path | None,
    image_size: int | None,
    workers: int,
    sets: tuple[str, ...],
    as_json: bool,
) -> None:
    """Read all of the data set NAME, and say what is in it.

    NAME may be a folder: what is in it then decides which data set reads it. What is printed: what
    was found and passed over, counts, sizes, captions, duplicates, images that are in two splits,
    and what is broken. The exit code is 2 if a split cannot be read, or if too much of it is broken
    (max_broken, few_broken).

    \b
    t2i datasets check MY_IMAGES
    t2i datasets check coco --data-dir coco --workers 2
    t2i datasets check MY_IMAGES --set caption_column=prompt --json
    """
    name, data_dir = _named(name, data_dir)
    from t2i.core.kit.datacheck import check_dataset
    from t2i.core.runs.configure import parse_sets

    own: dict[str, Any] = {
        "dir": None if data_dir is None else str(data_dir),
        "image_size": image_size,
    }
    given = parse_sets(sets)
    # Errors name settings as training has them: data.table. Both forms are taken.
    given = {key: value for key, value in given.items() if key != "data"} | given.get("data", {})
    settings = {key: value for key, value in own.items() if value is not None} | given
    choice = registry().datasets.choose(name, settings, "data set")
    report = check_dataset(choice, workers=workers, progress=_progress())
    errors = {split.error for split in report.splits}
    if len(errors) == 1 and (error := errors.pop()) and not as_json:
        raise UserError(error)  # once, not for each split
    if as_json:
        answer_json(report.document())
    else:
        _show(report)
    if problems := report.problems():
        more = f" (and {len(problems) - 1} more, above)" if len(problems) > 1 else ""
        raise UserError(f"data set '{name}' cannot be used as it is: {problems[0]}{more}")
    if data_dir is not None and not as_json:
        command = ["t2i", "train", "--model", "M", "--data", name, "--data-dir", str(data_dir)]
        own_sets = [
            part for text in sets for part in ("--set", f"data.{text.removeprefix('data.')}")
        ]
        answer(printable(f"train on it: {shlex.join([*command, *own_sets])}"))


def _named(name: str | None, data_dir: Path | None) -> tuple[str, Path | None]:
    """Return the data set and its folder, of which one may stand for both."""
    from t2i.core.runs.recognising import recognised, refuse_folder

    if name is None and data_dir is None:
        raise UserError("say what to check: t2i datasets check FOLDER, or the name of a data set")
    if name is not None and name not in registry().datasets and Path(name).expanduser().exists():
        if data_dir is not None:
            raise UserError(f"{name} and --data-dir {data_dir} are two folders: give one of them")
        data_dir, name = Path(name), None
    if name is None:
        assert data_dir is not None
        found = recognised(data_dir)
        note(f"data set: {found.name}, for {found.why}")
        return found.name, data_dir
    if "/" in name and name not in registry().datasets:
        raise UserError(f"{name} is no folder")
    registry().datasets[name]  # a misspelt name is told at once, before torch is imported
    if data_dir is not None:
        refuse_folder(name, data_dir, ("t2i datasets check", "--data-dir"))
    return name, data_dir


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
    common = _common(report)
    for line in common:
        answer(printable(line))
    for split in report.splits:
        for line in _lines(split, common):
            answer(printable(line) if not line.startswith(" ") else f"  {printable(line)}")
    for first, second, images in report.shared:
        answer(f"in both {first} and {second}: {len(images)} images")
        for line in _some([f"{a} is {b}" for a, b in images]):
            answer(f"  {printable(line)}")


def _about(split: SplitReport) -> list[str]:
    """What was found and passed over for a split."""
    passed = split.contents.passed_over.items()
    return [*split.contents.found, *(f"passed over: {reason}: {n}" for reason, n in passed)]


def _common(report: DataReport) -> list[str]:
    """What was found and passed over in all splits that could be read."""
    lists = [_about(split) for split in report.splits if not split.error]
    return [line for line in lists[0] if all(line in other for other in lists)] if lists else []


def _lines(split: SplitReport, common: Sequence[str]) -> list[str]:
    """A split in words; lines that begin with a space belong to the one above."""
    if split.error:
        return [f"{split.split}: {split.error}"]
    lines = [f"{split.split}: {split.examples} examples, {len(split.broken)} broken"]
    lines += [f" {line}" for line in _about(split) if line not in common]
    if split.width and split.height:
        modes = ", ".join(f"{mode} {count}" for mode, count in split.modes.items())
        lines.append(
            f" images: width {_spread(split.width)}, height {_spread(split.height)}; modes: {modes}"
        )
        if split.cut and split.cut[2] >= 0.005:
            lines.append(f" cropped: {split.cut[1]:.0%} of each image (median){_REMEDY}")
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
