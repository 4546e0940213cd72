"""How a command fails: one line, and an exit code (2: the user can mend it; 1: our fault)."""

from __future__ import annotations

import errno
import os
import sys
import traceback

import click

from t2i.cli.output import stdout
from t2i.core.errors import T2IError
from t2i.core.io.terminal import debugging, printable

INTERRUPTED = 130
_PLAINLY = {
    "is not a valid integer range": "is not a whole number",
    "is not a valid integer": "is not a whole number",
    "is not a valid float range": "is not a number",
    "is not a valid float": "is not a number",
}
"""Words of click's messages, and plain ones."""

_REMEDIES = {
    errno.EACCES: "choose another place, or mend its permissions",
    errno.EPERM: "choose another place, or mend its permissions",
    errno.EROFS: "choose a place that can be written to",
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "free some space, or choose another place",
    errno.EFBIG: "choose a place that allows files of that size",
    errno.EEXIST: "remove it, or choose another place",
    errno.ENOTDIR: "a file is in the way: remove it, or choose another place",
    errno.EISDIR: "a folder is in the way: remove it, or choose another place",
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "allow more open files (ulimit -n)",
}


def report(error: BaseException) -> int:
    """Print an error on stderr, in one line.

    A closed pipe (`t2i models | head -1`) is not an error.

    Args:
        error: What ended the command.

    Returns:
        The exit code.
    """
    if isinstance(error, BrokenPipeError):
        return 0
    code, line = explained(error)
    try:
        if debugging():
            traceback.print_exception(error)
        print(f"error: {printable(line)}", file=sys.stderr, flush=True)
    except OSError:  # nobody is there to read it; the exit code still tells
        pass
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
        return INTERRUPTED, "interrupted"
    if isinstance(error, click.ClickException):
        return 2, _usage(error)
    from t2i.core.registry.blame import unexpected, where

    if isinstance(error, OSError) and error.errno in _REMEDIES:
        return 2, f"{error.filename or 'a file'}: {error.strerror}; {_REMEDIES[error.errno]}"
    if (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    ):  # torch's: not imported for this
        return 2, f"out of memory ({where(error.__traceback__)}); use a smaller --batch-size"
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


def drain_stdout() -> None:
    """Write what is buffered; discard it if nobody reads, or Python would fail at exit."""
    try:
        stdout().flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout().fileno())
