"""How a command fails: one line, and an exit code (2: the user can mend it; 1: our fault)."""

from __future__ import annotations

import traceback

import click

from t2i.core.errors import Interrupted, T2IError, of_system, out_of_memory
from t2i.core.io.terminal import debugging, note

INTERRUPTED = 130
_PLAINLY = {
    "is not a valid integer range": "is not a whole number",
    "is not a valid integer": "is not a whole number",
    "is not a valid float range": "is not a number",
    "is not a valid float": "is not a number",
}
"""Words of click's messages, and plain ones."""


def report(error: BaseException) -> int:
    """Print an error on stderr, in one line. A command that was stopped on purpose has none.

    Args:
        error: What ended the command.

    Returns:
        The exit code.
    """
    code, line = explained(error)
    if debugging():
        traceback.print_exception(error)
    on_purpose = isinstance(error, (Interrupted, KeyboardInterrupt, click.Abort))
    note(line if on_purpose else f"error: {line}")
    return code


def explained(error: BaseException) -> tuple[int, str]:
    """Explain an error.

    Args:
        error: What ended the command.

    Returns:
        The exit code and one line of text.
    """
    if isinstance(error, T2IError):
        return error.exit_code, "; ".join([str(error), *getattr(error, "__notes__", [])])
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return INTERRUPTED, "; ".join(["interrupted", *getattr(error, "__notes__", [])])
    if isinstance(error, click.ClickException):
        return 2, _usage(error)
    from t2i.core.registry.blame import unexpected, where

    if isinstance(error, OSError) and (told := of_system(error)):
        return 2, told
    if out_of_memory(error):
        return 2, (
            f"out of memory ({where(error.__traceback__)}); use a smaller --batch-size, or a "
            "machine with more memory"
        )
    notes = getattr(error, "__notes__", [])  # where the traceback is kept
    more = notes or ([] if debugging() else ["T2I_DEBUG=1 shows more"])
    return 1, "; ".join([unexpected(error), *more])


def _usage(error: click.ClickException) -> str:
    """Word an error of click's, with the nearest option or the command that prints the help."""
    message = error.format_message()
    message = message[:1].lower() + message[1:].rstrip(".")
    for of_click, plain in _PLAINLY.items():
        message = message.replace(of_click, plain)
    if isinstance(error, click.NoSuchOption):
        message = f"no option is named '{error.option_name}'"
        name = error.option_name.lstrip("-").replace("-", "_")
        if error.ctx is not None and name in _settings(error.ctx):
            return f"{message}: it is a setting, write --set {name}=VALUE"
        if error.possibilities:
            return f"{message}; did you mean '{error.possibilities[0]}'?"
    context = getattr(error, "ctx", None)
    return f"{message}; see '{context.command_path} --help'" if context else message


def _settings(context: click.Context) -> set[str]:
    """Names of the settings that a command's `--set` may take: any model's, or any sampler's."""
    kind = {"train": "models", "sample": "samplers"}.get(str(context.info_name))
    if kind is None:
        return set()
    from t2i.core.registry.specs import import_object
    from t2i.core.registry.tables import registry

    return {
        name for spec in registry().table(kind)
        for name in import_object(spec.config).model_fields
    }  # fmt: skip
