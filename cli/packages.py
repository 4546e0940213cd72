"""`t2i install` and `t2i uninstall`: plugin packages in the running environment."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from t2i.cli.command import Command, json_option
from t2i.cli.output import answer, answer_json, note
from t2i.core.errors import UserError
from t2i.core.io.terminal import printable

if TYPE_CHECKING:
    from t2i.core.kit.packages import Installed, Plan
    from t2i.core.kit.targets import Target


@click.command(cls=Command)
@click.argument("package")
@click.option("--yes", is_flag=True, help="Do not ask: install from an index, run builds.")
@click.option("--force", is_flag=True, help="Install even what breaks t2i or what it needs.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and stop.")
@json_option
def install(package: str, yes: bool, force: bool, dry_run: bool, as_json: bool) -> None:
    """Install the plugin PACKAGE with pip: a folder, a wheel, or a name on the package index.

    A folder of that name wins over the index. All changes are listed first. What comes from an
    index is described, and t2i asks before it installs it. A change that would break t2i or a
    package that it needs is an error, and so is a package that registers nothing: nothing is
    installed then. Source packages run code when pip builds them, even with --dry-run: t2i asks
    first, unless you install your own folder.

    \b
    t2i install ./mynet
    t2i install mynet --dry-run
    t2i install mynet --yes       # in a script
    """
    from t2i.core.kit.targets import target_of
    from t2i.core.kit.workplace import workplace

    target = target_of(package)
    if target.meant:
        note(f"note: {target.meant}")
    with workplace():
        _install(target, yes, force, dry_run, as_json)


def _install(target: Target, yes: bool, force: bool, dry_run: bool, as_json: bool) -> None:
    from t2i.core.kit.packages import fetched
    from t2i.core.kit.packages import install as carry_out

    chosen = _planned(target, yes, dry_run)
    for change in chosen.changes:
        more = f": {change.origin}" if change in chosen.foreign and change.origin else ""
        note(f"change: {change}{more}")
    if not dry_run:
        _say_harm(chosen.harm)
        chosen.check(force=force)
        if names := [change.name for change in chosen.foreign]:
            _ask(f"others published {', '.join(names)}, and it would be installed", yes)
    with fetched(chosen) as complete:
        _say_harm(complete.harm if dry_run else complete.harm[len(chosen.harm) :])
        if dry_run:
            document = complete.document()
            answer_json(document) if as_json else answer(
                "it would break what is installed" if complete.harm else "t2i would be as it is"
            )
            return
        done = carry_out(complete, force=force)
    if as_json:
        answer_json({**complete.document(), "version": done.version, "plugins": list(done.plugins)})
    else:
        _describe(done)
    if done.broken:
        raise UserError(
            f"{done.name} is installed, but broken: {done.broken[0]}; 't2i uninstall {done.name}' "
            f"removes it"
        )


def _planned(target: Target, yes: bool, dry_run: bool) -> Plan:
    """Make the plan. Ask before code of a package is run."""
    from t2i.core.kit.packages import SourceOnly, plan

    if target.builds and target.local and not dry_run:
        note(f"building {target.text}, which runs its code")
    elif target.builds:
        _ask(f"only a build tells what {target.text} is, and that runs its code", yes)
    try:
        return plan(target)
    except SourceOnly as error:
        _ask(str(error), yes)
        return plan(target, build=True)


def _ask(what: str, yes: bool) -> None:
    """Say what would happen, and ask whether to go on.

    Where nobody can answer, it is an error unless --yes is given.
    """
    if yes:
        note(what)
    elif sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty():
        note(what)
        click.confirm("go on?", abort=True, err=True)
    else:
        raise UserError(f"{what}: --yes allows it")


def _say_harm(harm: Sequence[str]) -> None:
    for one in harm:
        note(f"harm: {one}")


def _describe(done: Installed) -> None:
    for plugin in done.plugins:
        things = "; ".join(
            f"{kind}: {', '.join(names)}" for kind, names in plugin["registers"].items()
        )
        answer(
            printable(
                f"{done.name} {done.version}: plugin '{plugin['name']}' registers "
                f"{things or 'nothing'}"
            )
        )


@click.command(cls=Command)
@click.argument("package")
def uninstall(package: str) -> None:
    """Remove the plugin package PACKAGE. Other packages, and t2i itself, cannot be removed."""
    from t2i.core.kit.packages import uninstall as carry_out
    from t2i.core.kit.workplace import workplace

    with workplace():
        answer(printable(f"removed {carry_out(package)}"))
