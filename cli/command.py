"""What all commands share, and groups that import a command when it is called."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from t2i.cli.output import note
from t2i.core.errors import UserError, nearest
from t2i.core.io.files import check_regular
from t2i.core.io.names import names_in
from t2i.core.registry.specs import AUTO, import_object
from t2i.core.registry.tables import registry

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Command(click.Command):
    """A command. It prints a warning for each broken plugin, and runs all the same."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command with `sys.stdout` redirected to stderr.

        Args:
            ctx: The parsed command line.

        Returns:
            What the command's function returns.
        """
        with contextlib.redirect_stdout(sys.stderr):
            for plugin in registry().broken():
                note(f"warning: {plugin.origin}: {plugin.error}")
            return super().invoke(ctx)


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called.

    Args:
        name: Name of the group.
        lazy: Import path and one line of help of each command, by name.
        help: Help of the group.
        fallback: The command that is meant when the first argument names none. None: an error.
        bare: The command that is meant when there are no arguments but options. None: the help.
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
        """List the names of the commands.

        Args:
            ctx: The parsed command line.

        Returns:
            The names, in the order of the help.
        """
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command.

        Args:
            ctx: The parsed command line.
            cmd_name: Its name.

        Returns:
            The command; None if there is none of that name.
        """
        if cmd_name not in self._lazy:
            return None
        command: click.Command = import_object(self._lazy[cmd_name][0])
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the name of the command that is meant where none is given.

        Args:
            ctx: The context to fill.
            args: The command line after the group's name.

        Returns:
            The arguments that are left.
        """
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
        """Find the command that the first argument names.

        Args:
            ctx: The parsed command line.
            args: The arguments; the first one is a name.

        Returns:
            The name, the command, and the rest of the arguments.

        Raises:
            UserError: No command has that name. The error names the nearest one.
        """
        if args[0] not in self._lazy:
            raise UserError(f"no command is named '{args[0]}'{nearest(args[0], self._lazy)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them.

        Args:
            ctx: The parsed command line.
            formatter: Receives the lines of the help.
        """
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


class PlainPath(click.Path):
    """A path that is no pipe, socket or device: these could be waited for, or read, for ever."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the value of an option or argument.

        Args:
            value: The text, or a path that was read before.
            param: The option or argument.
            ctx: The parsed command line.

        Returns:
            The path.

        Raises:
            UserError: It is a pipe, a socket or a device.
        """
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        check_regular(path, param.opts[0] if param else "")
        return path


def path_option(*names: str, **settings: Any) -> Callable[[Decorated], Decorated]:
    """Declare an option whose value is a path.

    Args:
        names: Names of the option, as for `click.option`.
        settings: Everything else that `click.option` takes.

    Returns:
        A decorator of a command's function, which receives a Path.
    """
    return click.option(*names, type=PlainPath(), **settings)


def listed(text: str | None, option: str = "models") -> list[str] | None:
    """Split the value of an option that takes several names.

    Args:
        text: Names with commas between. None: the option is not given.
        option: Name of the option, the plural of what it names.

    Returns:
        The names, each once; None if the option is not given.

    Raises:
        UserError: There is none.
    """
    if text is None:
        return None
    names = names_in(text)
    if not names:
        every = ", or 'all'" if option == "models" else ""
        raise UserError(f"--{option}: name at least one {option.removesuffix('s')}{every}")
    return names


def run_option(*names: str, **settings: Any) -> Callable[[Decorated], Decorated]:
    """Declare an option that takes a run, in any of the ways that `find` knows.

    Args:
        names: Names of the option, as for `click.option`.
        settings: Everything else that `click.option` takes.

    Returns:
        A decorator of a command's function, which receives the text.
    """
    return click.option(*names, shell_complete=complete_runs, **settings)


def complete_runs(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete runs in a shell: those under runs/ by path or name, and any path.

    Args:
        ctx: The parsed command line.
        param: The option.
        incomplete: What is typed so far. Of NAME=RUN, what follows "=" is completed.

    Returns:
        The runs, and a request for paths.
    """
    from t2i.core.models.locating import LATEST, run_names

    before, equals, typed = incomplete.rpartition("=")
    paths = run_names()
    offered = [*paths, LATEST] if "/" in typed else [*map(os.path.basename, paths), LATEST]
    return [
        *(
            CompletionItem(before + equals + name)
            for name in dict.fromkeys(offered)
            if name.startswith(typed)
        ),
        CompletionItem(typed, type="file"),
    ]


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)

device_option = click.option(
    "--device",
    metavar="D",
    help="Device: cpu, cuda, cuda:1, mps (default: the best there is).",
)


class NumberOrAuto(click.IntRange):
    """A whole number from 1 on, or "auto"."""

    def __init__(self) -> None:
        super().__init__(1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the value of an option.

        Args:
            value: The text, or a value that was read before.
            param: The option.
            ctx: The parsed command line.

        Returns:
            The number, or "auto".
        """
        return AUTO if value == AUTO else super().convert(value, param, ctx)
