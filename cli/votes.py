"""`t2i votes`: what people's votes on images say about models."""

from __future__ import annotations

from pathlib import Path

import click

from t2i.cli.command import Command, PlainPath, json_option
from t2i.cli.output import answer_json, console


@click.command(cls=Command)
@click.argument("files", type=PlainPath(), nargs=-1, required=True)
@click.option("--question", metavar="Q", help="The only question to take (default: all).")
@json_option
def votes(files: tuple[Path, ...], question: str | None, as_json: bool) -> None:
    """Rank models by the votes in FILES, which 't2i web' writes.

    Prints a table for each question: how often each model wins, with an interval and the ranks
    that are not excluded; below it how far raters agree, and how many more votes would settle it.

    \b
    t2i votes runs/votes.jsonl
    t2i votes anna.jsonl bob.jsonl --question faithful
    """
    from t2i.benchmarks.votes.judging import judge
    from t2i.benchmarks.votes.table import show

    found = judge(files, question)
    if as_json:
        answer_json(found.document())
    else:
        show(found, console())
