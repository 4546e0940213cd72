"""The two kinds of error that a user may see, and the exit code of each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class T2IError(Exception):
    """A failure that we can name. The command line prints it as one line and leaves with `exit_code`."""

    exit_code = 1


class UserError(T2IError):
    """Something that the user can mend: the message says what is wrong, where, and how to mend it."""

    exit_code = 2


class Interrupted(T2IError):
    """Stopped by a signal, after everything was saved. `exit_code` is 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def in_one_line(error: Exception) -> str:
    """The type of an error and the first sentence of its message, cut to 160 characters."""
    first = str(error).strip().partition("\n")[0].partition(". ")[0]
    return f"{type(error).__name__}: {first[:160]}" if first else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt `name`: "; did you mean 'x'?", or the known names where none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else "; none is known"
