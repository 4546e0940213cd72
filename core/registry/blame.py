"""Errors that nobody foresaw, and the line that they come from: a plugin's if one took part."""

from __future__ import annotations

import traceback
from types import TracebackType

from t2i.core.errors import Crash, T2IError
from t2i.core.registry.tables import registry


def where(trace: TracebackType | None) -> str:
    """Find the line that an error comes from.

    Args:
        trace: The traceback of the error. None: there is none.

    Returns:
        The innermost line of an installed plugin, else of t2i, as "module:line". A library's own
        line says little. "t2i" if there is no line of either.
    """
    plugins, ours, theirs = _plugins(), "", ""
    while trace:
        module = str(trace.tb_frame.f_globals.get("__name__", "?"))
        package = module.partition(".")[0]
        if package in plugins:
            theirs = f"{module}:{trace.tb_lineno}"
        elif package == "t2i":
            ours = f"{module}:{trace.tb_lineno}"
        trace = trace.tb_next
    return theirs or ours or "t2i"


def _plugins() -> frozenset[str]:
    try:
        return registry().packages()
    except T2IError:  # T2I_STRICT, and that is the error itself
        return frozenset()


def unexpected(error: BaseException) -> str:
    """Describe an error that nobody foresaw.

    Args:
        error: The error.

    Returns:
        Its type, the line that it comes from, and the first 300 letters of its message.
    """
    line = f"unexpected {type(error).__name__} in {where(error.__traceback__)}"
    message = str(error)[:300]
    return f"{line}: {message}" if message else line


def crash(error: Exception) -> Crash:
    """Keep what is to be said of an error where the error itself cannot go: in another process.

    Args:
        error: The error.

    Returns:
        The same as an error of ours, with the traceback as text.
    """
    return Crash(unexpected(error), "".join(traceback.format_exception(error)))
