"""The standard streams of a command, which may be closed, or lose their reader at any time."""

from __future__ import annotations

import os
import sys
from typing import Any, TextIO, cast

from t2i.core.errors import UserError, of_system


class Lasting:
    """A stream that stays usable when its reader leaves (`2>&1 | head`, a closed terminal).

    What is written then is discarded: the work that is reported goes on.

    Args:
        stream: The stream.
        needed: Whether what is written is the command's result. If it cannot be written, although a
            reader did not leave, that is an error.
    """

    def __init__(self, stream: TextIO, needed: bool = False) -> None:
        self._stream, self._needed = stream, needed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write text.

        Args:
            text: The text.

        Returns:
            The number of its letters.

        Raises:
            UserError: The text is needed and cannot be written.
        """
        try:
            self._stream.write(text)
        except OSError as error:
            self._discard(error)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered.

        Raises:
            UserError: It is needed and cannot be written.
        """
        try:
            self._stream.flush()
        except OSError as error:
            self._discard(error)

    def _discard(self, error: OSError) -> None:
        if isinstance(error, BlockingIOError):  # the reader is slow: only this text is lost
            return
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())  # also for what is buffered, and for libraries
        os.close(null)
        if self._needed and not isinstance(error, BrokenPipeError):
            error.filename = "stdout"
            plain = f"stdout: {error.strerror}; open it, or send it to /dev/null"
            raise UserError(of_system(error) or plain)


def lasting(stream: TextIO, needed: bool = False) -> TextIO:
    """Make a stream that stays usable when its reader leaves.

    Args:
        stream: The stream.
        needed: As for `Lasting`.

    Returns:
        The stream, as `Lasting`.
    """
    made: Any = stream if isinstance(cast(Any, stream), Lasting) else Lasting(stream, needed)
    return cast(TextIO, made)


def open_closed() -> None:
    """Open the standard streams that are closed (`>&-`).

    Otherwise a file of ours would get the number of one, and a library's message would land in it.
    Nothing can be read from stdin then. What is written to stderr is discarded, and what is written
    to stdout is an error.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is not None or getattr(sys, f"__{name}__") is not None:
            continue
        null = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
        if null != number:
            os.dup2(null, number)
            os.close(null)
        stream = os.fdopen(number, "w" if number else "r", closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
