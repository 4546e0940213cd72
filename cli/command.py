"""How commands are built: found without importing them, run with stdout kept clean and broken
plugins named."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from t2i.cli.output import note
from t2i.core.errors import UserError, nearest
from t2i.core.registry.specs import import_object
from t2i.core.registry.tables import registry


class Command(click.Command):
    """A command. Broken plugins get a line each on stderr, and hinder nothing."""

    def invoke(self, ctx: click.Context) -> Any:
        with contextlib.redirect_stdout(sys.stderr):
            for plugin in registry().broken():
                note(f"warning: {plugin.origin}: {plugin.error}")
            return super().invoke(ctx)


class LazyGroup(click.Group):
    """Commands by name: (import path, one line of help). A command's module is imported when the
    command is called.

    fallback: the command that is meant when the first argument names none. bare: the one that is
    meant when there is no argument but options.
    """

    def __init__(
        self, name: str, lazy: Mapping[str, tuple[str, str]], *, help: str,
        fallback: str | None = None,
        bare: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__(name, help=help, context_settings={"help_option_names": ["-h", "--help"]})
        self._lazy = lazy
        self._fallback = fallback
        self._bare = bare

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return None
        command: click.Command = import_object(self._lazy[cmd_name][0])
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if self._fallback and args and args[0] not in (*self._lazy, *ctx.help_option_names):
            args = [self._fallback, *args]
        if self._bare and (
            not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names)
        ):
            args = [self._bare, *args]
        return super().parse_args(ctx, args or ["--help"])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self._lazy:
            raise UserError(f"no command is named '{args[0]}'{nearest(args[0], self._lazy)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._lazy.items()])


def registered(*kinds: str) -> Callable[..., list[CompletionItem]]:
    """Complete registry names in a shell.

    Args:
        kinds: Kinds of things whose names are offered, such as "models".

    Returns:
        A function for click's `shell_complete`.
    """

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        specs = [spec for kind in kinds for spec in registry().table(kind)]
        return [
            CompletionItem(spec.name, help=spec.summary)
            for spec in specs
            if spec.name.startswith(incomplete)
        ]

    return complete


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)
