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


class DataAway(UserError):
    """The files of a data set cannot be reached at present, for example because a disk is away."""


class Crash(T2IError):
    """An error that nobody foresaw, for example of a plugin in a process that loads data.

    Args:
        message: What happened and where, in one line.
        trace: The traceback as text.
    """

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message, trace)  # both, so that a worker process can send it
        self.trace = trace

    def __str__(self) -> str:
        return str(self.args[0])


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


_AWAY = frozenset({
    errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EIO, errno.ENXIO, errno.ENODEV,
    errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED,
    errno.ECONNABORTED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
    errno.EAGAIN, errno.EBUSY,
})  # fmt: skip
"""System errors of a file that may pass by themselves."""


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
    errno.ELOOP: "remove the link, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "allow more open files (ulimit -n)",
}
"""How to mend errors of the system, by their numbers."""


def of_system(error: OSError) -> str | None:
    """Word an error of the system.

    Args:
        error: The error.

    Returns:
        The file, what is wrong, and how to mend it. None if that is not known.
    """
    if error.errno not in _REMEDIES:
        return None
    return f"{error.filename or 'a file'}: {error.strerror}; {_REMEDIES[error.errno]}"


def is_away(error: OSError) -> bool:
    """Tell whether an error may pass by itself, when what holds the file is back.

    Args:
        error: What reading a file raised.

    Returns:
        True if the system cannot reach the file; False if it can, or lacks memory or the like.
    """
    return error.errno in _AWAY


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
