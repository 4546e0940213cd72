"""`t2i fetch`: what a protocol or a model needs from outside."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from t2i.cli.command import Command, json_option
from t2i.cli.output import answer, answer_json, answer_table, note
from t2i.cli.progress import EVERY_SECONDS
from t2i.core.fetch.downloads import (
    Arrived,
    DownloadWatcher,
    chosen,
    command,
    default_mirror,
    mirrored,
    place,
    status,
)
from t2i.core.fetch.downloads import fetch as get
from t2i.core.fetch.transfer import Progress
from t2i.core.io.names import names_in
from t2i.core.io.terminal import printable
from t2i.core.registry.specs import DownloadSpec
from t2i.core.registry.tables import registry


@click.command(cls=Command)
@click.argument("name", required=False)
@click.option("--parts", metavar="A,B", help="Only these parts of it ('t2i fetch' lists them).")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Into this folder.",
)
@click.option("--mirror", metavar="URL", help="Get files from URL/HOST/PATH (default: T2I_MIRROR).")
@click.option("--unpack", is_flag=True, help="Unpack zip archives too, beside themselves.")
@click.option("--yes", is_flag=True, help="Do not ask before a download begins.")
@json_option
def fetch(
    name: str | None,
    parts: str | None,
    out: Path | None,
    mirror: str | None,
    unpack: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Get the download NAME; without NAME, list what there is to get, and what is here.

    What was begun goes on where it broke off; every file is checked against its published checksum,
    where there is one. The licence is shown first; on a terminal, t2i asks before it begins.
    """
    if name is None:
        _list(as_json)
        return
    spec = registry().downloads[name]
    names = names_in(parts)
    _announce(spec, names, out, mirror)
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm("get it?", abort=True, err=True)
    with _watcher() as watcher:
        files, folders = get(
            name, parts=names, out=out, mirror=mirror, unpacked=unpack, watcher=watcher
        )
    if as_json:
        answer_json(
            {
                "name": name,
                "files": [_described(one) for one in files],
                "hub": [str(folder) for folder in folders],
            }
        )
        return
    for one in files:
        how = (
            "its checksum agrees"
            if one.checked
            else f"not checked: nobody publishes a checksum; SHA-256 {one.sha256}"
        )
        answer(
            printable(f"{one.path}: {'fetched' if one.new else 'here'}, {_size(one.size)}, {how}")
        )
    for folder in folders:
        answer(printable(f"{folder}: here"))


def _described(one: Arrived) -> dict[str, Any]:
    return {
        "path": str(one.path), "size": one.size, "sha256": one.sha256, "checked": one.checked,
        "fetched": one.new,
    }  # fmt: skip


def _announce(spec: DownloadSpec, parts: list[str], out: Path | None, mirror: str | None) -> None:
    """Licence, sizes and places, before anything is asked for."""
    note(f"{spec.name}: {spec.summary}")
    note(f"licence: {spec.licence} ({spec.licence_url})")
    for file in chosen(spec, parts):
        note(
            f"  {file.place}, {_size(file.size)}, from "
            f"{mirrored(file.url, mirror or default_mirror())}"
        )
    for hub in spec.hub:
        note(
            f"  {hub.repository} ({hub.revision}), from the Hugging Face hub, into "
            f"{out or 'its cache'}"
        )
    if spec.files:
        note(f"  into {out or place(spec.name)}")


def _list(as_json: bool) -> None:
    rows = [_row(spec) for spec in registry().downloads]
    if as_json:
        answer_json(rows)
        return
    shown = [
        [
            row["name"],
            _size(row["size"]),
            _state(row),
            row["licence"],
            ", ".join(row["parts"]),
            row["summary"],
        ]
        for row in rows
    ]
    answer_table(["name", "size", "state", "licence", "parts", "summary"], shown)


def _row(spec: DownloadSpec) -> dict[str, Any]:
    found, sizes = status(spec), [file.size for file in chosen(spec, ())]
    return {
        "name": spec.name, "summary": spec.summary, "licence": spec.licence,
        "licence_url": spec.licence_url,
        "size": None if None in sizes or spec.hub else sum(size or 0 for size in sizes),
        "parts": list(spec.parts), "default": list(spec.default or spec.parts),
        "here": not found.missing,
        "folder": str(found.folder) if found.folder else None, "missing": list(found.missing),
        "command": command(spec), "plugin": registry().downloads.origin(spec.name).plugin,
    }  # fmt: skip


def _state(row: dict[str, Any]) -> str:
    if row["here"]:
        return "here"
    return f"lacks {', '.join(row['missing'])}" if row["folder"] else "missing"


def _size(size: int | None) -> str:
    if size is None:
        return "size unknown"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


# --- progress -------------------------------------------------------------------------------------


@contextmanager
def _watcher() -> Iterator[DownloadWatcher]:
    """A bar on a terminal, plain lines elsewhere, all on stderr."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Bars(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True
    ) as bars:

        class Bar(DownloadWatcher):
            def say(self, text: str) -> None:
                bars.console.print(printable(text), markup=False, highlight=False)

            def begin(self, name: str) -> Progress:
                task = bars.add_task(name, total=None)
                return lambda done, total: bars.update(task, completed=done, total=total)

        yield Bar()


class _Lines(DownloadWatcher):
    """A line every few seconds, and one for each file that has come."""

    def say(self, text: str) -> None:
        note(text)

    def begin(self, name: str) -> Progress:
        last = time.monotonic()

        def say(done: int, total: int | None) -> None:
            nonlocal last
            if time.monotonic() - last >= EVERY_SECONDS:
                last = time.monotonic()
                whole = (
                    f" of {_size(total)} ({100 * done // max(total, 1)} %)"
                    if total is not None
                    else ""
                )
                note(f"{name}: {_size(done)}{whole}")

        return say
