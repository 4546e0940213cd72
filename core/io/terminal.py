"""Output to the terminal: libraries are silenced, text from other sources is made harmless."""

from __future__ import annotations

import os
import sys
import warnings

CHATTY = (
    "PIL",
    "accelerate",
    "diffusers",
    "huggingface_hub",
    "torch",
    "torchvision",
    "torch_fidelity",
    "transformers",
)
"""Packages whose warnings are not shown."""

_ERRORS_ONLY = ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "HF_HUB_VERBOSITY")


def debugging() -> bool:
    """Return whether the user has set T2I_DEBUG=1.

    Returns:
        True if tracebacks and all messages of libraries are to be shown.
    """
    return os.environ.get("T2I_DEBUG") == "1"


def quiet() -> None:
    """Restrict libraries to messages about errors. Call it before they are imported.

    Environment variables that the user has set are kept. With T2I_DEBUG=1 nothing is changed.
    Progress bars of downloads are kept on a terminal, because a download of hundreds of megabytes
    would look like a hang.
    """
    if debugging():
        return
    for name in _ERRORS_ONLY:
        os.environ.setdefault(name, "error")
    os.environ.setdefault(
        "TOKENIZERS_PARALLELISM", "false"
    )  # otherwise it warns whenever a loader process is forked
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for category in (DeprecationWarning, FutureWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=rf"({'|'.join(CHATTY)})(\.|$)")


def printable(text: str) -> str:
    """Make text from any source safe to print on a terminal, as one line.

    Args:
        text: Any text.

    Returns:
        The text, with each run of white space as one space, and every other character that is not
        printable (control and formatting characters, lone surrogates) as its escape, such as \\x1b.
    """
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def note(text: str) -> None:
    """Print one line on stderr, for code that has no reporter.

    Args:
        text: The line, from any source; it is made printable.
    """
    print(printable(text), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Format a duration as 1:02:03 or 2:03.

    Args:
        seconds: The duration; it is rounded to whole seconds.

    Returns:
        Hours (if any), minutes and seconds.
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
