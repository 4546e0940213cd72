"""`t2i plugins`: what is installed, whether it keeps its promises, and how to begin another."""

from __future__ import annotations

import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from t2i.cli.command import Command, LazyGroup, json_option, path_option
from t2i.cli.output import answer, answer_json, answer_table, note, stdout
from t2i.core.errors import T2IError
from t2i.core.io.terminal import printable
from t2i.core.kit.listing import described
from t2i.core.registry.tables import registry, singular

if TYPE_CHECKING:
    from t2i.core.kit.conformance.outcome import Outcome

COMMANDS = {
    "list": ("t2i.cli.plugins:listing", "List the plugins ('t2i plugins' is short for it)."),
    "check": ("t2i.cli.plugins:check", "Check that a plugin, or a model, keeps its promises."),
    "new": ("t2i.cli.plugins:new", "Write a complete plugin package to begin with."),
}

WIDEST = 100
"""Characters of a detail in a table: the lines below it say all."""

plugins = LazyGroup(
    "plugins",
    COMMANDS,
    help="List the plugins, with what each registers and why one is broken; check one; begin a new "
    "one.",
    bare="list",
)


@click.command("list", cls=Command)
@json_option
def listing(as_json: bool) -> None:
    """List the plugins: distribution, what each registers, and why one is broken."""
    loaded = registry().plugins
    if as_json:
        answer_json([described(plugin) for plugin in loaded])
        return
    rows = []
    for plugin in loaded:
        registers = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in plugin.names.items())
        state = f"BROKEN: {plugin.error}" if plugin.error else "ok"
        rows.append(
            [
                plugin.origin.plugin,
                plugin.origin.distribution,
                plugin.origin.version,
                registers,
                state,
            ]
        )
    answer_table(["name", "distribution", "version", "registers", "state"], rows)


@click.command(cls=Command)
@click.argument("name")
@click.option("--only", multiple=True, metavar="CHECK", help="Only this check; may be repeated.")
@json_option
def check(name: str, only: tuple[str, ...], as_json: bool) -> None:
    """Check that NAME keeps its promises.

    NAME is a model, sampler, encoder, data set or metric, or a plugin or distribution, of which
    everything is checked. Models are trained for 50 steps in each stage, in a temporary folder. The
    exit code is 1 if a check fails.

    \b
    t2i plugins check ldm
    t2i plugins check my-model --only resumes
    """
    from t2i.core.kit.conformance.catalogue import find

    checks = find(name, only)
    from t2i.core.kit.conformance.runner import run_checks

    outcomes = []
    with tempfile.TemporaryDirectory(prefix="t2i-check-") as folder:
        for outcome in run_checks(checks, Path(folder)):
            word = singular(outcome.kind)
            detail = f"  {_short(outcome.detail)}" if outcome.detail else ""
            note(f"{outcome.state:7}  {word} {outcome.name}: {outcome.check}{detail}")
            outcomes.append(outcome)
    failed = [outcome for outcome in outcomes if outcome.state == "FAILED"]
    if as_json:
        answer_json([outcome.document() for outcome in outcomes])
    else:
        _show(outcomes)
    if failed:
        raise T2IError(f"{len(failed)} of {len(outcomes)} checks of '{name}' failed")


def _show(outcomes: list[Outcome]) -> None:
    """Print a table of all checks if stdout is a file, where the lines of progress are not.

    Then print each failure: what should hold, what does not, and how to see more.
    """
    titles = ["kind", "name", "check", "state", "seconds", "detail"]
    rows = [
        [o.kind, o.name, o.check, o.state, f"{o.seconds:.1f}", _short(o.detail)] for o in outcomes
    ]
    if not stdout().isatty():
        answer_table(titles, rows)
    for outcome in outcomes:
        if outcome.state == "FAILED":
            answer(printable(f"{outcome.name}, {outcome.check}: {outcome.detail}"))
            answer(f"  should hold: {outcome.holds}")
            answer(f"  to see more: {outcome.see}")


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 3]}..."


@click.command(cls=Command)
@click.argument("name")
@path_option("--out", metavar="DIR", help="New folder (default: ./NAME).")
def new(name: str, out: Path | None) -> None:
    """Write a plugin package NAME with a small model that works, its test, and a README."""
    from t2i.core.kit.scaffold import write_package

    folder = out or Path(name)
    for path in write_package(name, folder):
        answer(printable(str(path)))
    place = shlex.quote(str(folder) if folder.is_absolute() else f"./{folder}")
    note(f"next: t2i install {place}; t2i plugins check {name}; t2i train --model {name}")
