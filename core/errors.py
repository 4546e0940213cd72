"""The errors that a user may see, with their exit codes."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

NO_MEMORY = (
    "DefaultCPUAllocator", "not enough memory", "bad_alloc", "Cannot allocate memory",
    "out of memory", "Failed to allocate memory", "could not create a memory object",
)  # fmt: skip
"""Words in the messages of libraries that got no memory."""


class T2IError(Exception):
    """A failure with a known cause.

    The command line prints it as one line and exits with `exit_code`.
    """

    exit_code = 1


class UserError(T2IError):
    """An error that the user can mend.

    The message says what is wrong, where, and how to mend it.
    """

    exit_code = 2


class Interrupted(T2IError):
    """A run was stopped by a signal, after everything was saved.

    `exit_code` is 128 plus the number of the signal.

    Args:
        message: The message.
        signal_number: Number of the signal, such as 15 for SIGTERM.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that there is not enough memory.

    Args:
        error: Any error. Torch's are RuntimeErrors on the processor.

    Returns:
        Whether it does.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(word in str(error) for word in NO_MEMORY)


def in_one_line(error: BaseException) -> str:
    """Describe an error in one line.

    Args:
        error: The error.

    Returns:
        Its type, and the first sentence of its message, cut to 160 characters.
    """
    first = str(error).strip().partition("\n")[0].partition(". ")[0]
    return f"{type(error).__name__}: {first[:160]}" if first else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """Make a hint for a misspelt name, to be appended to a message.

    Args:
        name: The unknown name.
        known: The known names.

    Returns:
        "; did you mean 'x'?", or a list of the known names if none is similar.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else "; none is known"
