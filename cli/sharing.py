"""`t2i push` and `t2i pull`: share runs through the Hugging Face hub."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from t2i.cli.command import Command, complete_runs, json_option, path_option
from t2i.cli.output import answer, answer_json, note
from t2i.core.errors import UserError
from t2i.core.io.terminal import printable

if TYPE_CHECKING:
    from t2i.core.sharing.parcel import Parcel


@click.command(cls=Command)
@click.argument("run", shell_complete=complete_runs)
@click.argument("repo", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--licence", metavar="L", help="Licence of the weights, such as mit or cc-by-4.0.")
@click.option("--no-metrics", is_flag=True, help="Leave out the log.")
@click.option("--checkpoints", is_flag=True, help="Upload the newest checkpoint too.")
@path_option(
    "--results",
    multiple=True,
    metavar="BENCH",
    help="Folder of a benchmark that scored the run. Repeatable.",
)
@click.option("--dry-run", is_flag=True, help="Print what would be uploaded, and stop.")
@click.option("--yes", is_flag=True, help="Do not ask before the upload.")
@json_option
def push(
    run: str, repo: str, private: bool, licence: str | None, no_metrics: bool,
    checkpoints: bool, results: tuple[Path, ...], dry_run: bool, yes: bool, as_json: bool,
) -> None:  # fmt: skip
    """Publish a complete run on the Hugging Face hub, with a model card.

    Uploaded are the model, the configuration, the log, the samples and the scores. Absolute paths
    of this machine are taken out. On a terminal, t2i shows the files and asks first.

    \b
    t2i push runs/RUN OWNER/NAME --dry-run
    t2i push runs/RUN OWNER/NAME --licence mit --private
    """
    from t2i.core.sharing.push import Pushed, prepare, upload

    parcel = prepare(
        run, repo, licence=licence, metrics=not no_metrics, checkpoints=checkpoints, results=results
    )
    if dry_run:
        done = Pushed.of(parcel)
        if not as_json:
            _show(parcel, licence, answer)
    else:
        if not yes:
            _show(parcel, licence, note)
            _ask(parcel, private)
        done = upload(parcel, private=private)
    if as_json:
        answer_json(vars(done))
    elif done.url:
        answer(printable(f"pushed {len(done.files)} files: {done.url}"))


def _show(parcel: Parcel, licence: str | None, say: Callable[[str], None]) -> None:
    """Print the files with their sizes, and what is to be known before they are published."""
    sizes = parcel.sizes()
    for name, size in sizes.items():
        say(printable(f"{name}: {size:,} bytes"))
    say(f"{len(sizes)} files, {sum(sizes.values()):,} bytes, for {parcel.name}")
    for where in parcel.removed:
        say(printable(f"path of this machine taken out: {where}"))
    for remark in parcel.remarks:
        say(printable(remark))
    if parcel.run.captions():
        say("the captions of the samples come from the data set, and are published")
    if licence is None:
        say("licence: unknown, and the card says so; --licence names one")


def _ask(parcel: Parcel, private: bool) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError("this is no terminal to ask on: --yes uploads without a question")
    whom = "to a private repository" if private else "where everybody may see it"
    click.confirm(f"upload it to {parcel.name}, {whom}?", abort=True, err=True)


@click.command(cls=Command)
@click.argument("repo", metavar="OWNER/NAME")
@path_option("--out", metavar="RUN", help="New folder (default: runs/NAME).")
@json_option
def pull(repo: str, out: Path | None, as_json: bool) -> None:
    """Fetch a run that somebody pushed, into a folder under runs/.

    Every file of the model is checked by its SHA-256. OWNER/NAME@REVISION fetches a certain
    revision. To sample without a folder: t2i sample --run OWNER/NAME.
    """
    from t2i.core.sharing.pull import pull as get

    run = get(repo, out)
    if as_json:
        answer_json({"run": str(run.path)})
        return
    answer(printable(f"run: {run.path}"))
