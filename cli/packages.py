"""`t2i install` and `t2i uninstall`: plugin packages in the running environment."""

from __future__ import annotations

import click

from t2i.cli.command import Command, json_option
from t2i.cli.output import answer, answer_json, note
from t2i.core.errors import UserError
from t2i.core.io.terminal import printable


@click.command(cls=Command)
@click.argument("package")
@click.option("--force", is_flag=True, help="Install even what breaks t2i or what it needs.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and stop.")
@json_option
def install(package: str, force: bool, dry_run: bool, as_json: bool) -> None:
    """Install the plugin PACKAGE with pip: a name on the package index, a folder or a wheel.

    All changes are listed first. A change that would break t2i, or a package that it needs, is an
    error.
    """
    from t2i.core.kit.packages import install as carry_out
    from t2i.core.kit.packages import plan

    chosen = plan(package)
    for change in chosen.changes:
        note(f"change: {change}")
    for harm in chosen.harm:
        note(f"harm: {harm}")
    if dry_run:
        answer_json(chosen.document()) if as_json else answer(printable(_said(len(chosen.harm))))
        return
    done = carry_out(chosen, force=force)
    if as_json:
        answer_json({**chosen.document(), "version": done.version, "plugins": list(done.plugins)})
    elif not done.plugins:
        answer(
            printable(
                f"{done.name} {done.version} is installed, but registers nothing: it is no plugin "
                f"of t2i"
            )
        )
    else:
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
    if done.broken:
        raise UserError(
            f"{done.name} is installed, but broken: {done.broken[0]}; 't2i uninstall {done.name}' "
            f"removes it"
        )


def _said(harm: int) -> str:
    return (
        f"it would break {harm} requirement(s) of t2i's packages"
        if harm
        else "t2i would be as it is"
    )


@click.command(cls=Command)
@click.argument("package")
def uninstall(package: str) -> None:
    """Remove the plugin package PACKAGE. Other packages, and t2i itself, cannot be removed."""
    from t2i.core.kit.packages import uninstall as carry_out

    answer(printable(f"removed {carry_out(package)}"))
