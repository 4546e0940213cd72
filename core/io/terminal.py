"""What reaches the terminal: libraries' chatter kept away, other people's text made harmless."""

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
_ERRORS_ONLY = ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "HF_HUB_VERBOSITY")


def debugging() -> bool:
    """Whether T2I_DEBUG=1 asks for tracebacks and for all that libraries have to say."""
    return os.environ.get("T2I_DEBUG") == "1"


def quiet() -> None:
    """Lets libraries speak of errors only. To be called before they are imported; what the user has set stays.

    Download bars are kept on a terminal: a download of hundreds of megabytes must not look like a hang.
    """
    if debugging():
        return
    for name in _ERRORS_ONLY:
        os.environ.setdefault(name, "error")
    os.environ.setdefault(
        "TOKENIZERS_PARALLELISM", "false"
    )  # or it warns at every fork of a loader process
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for category in (DeprecationWarning, FutureWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category, module=rf"({'|'.join(CHATTY)})(\.|$)")


def printable(text: str) -> str:
    """One line of `text` that a terminal can do nothing but show: runs of white space become one space, all else that
    is not printable (control and formatting characters, lone surrogates) its escape, such as \\x1b."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def note(text: str) -> None:
    """A line on stderr, whoever wrote it: for what has no reporter."""
    print(printable(text), file=sys.stderr, flush=True)
