"""Progress bars of the libraries that load weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from diffusers.utils import logging as of_diffusers
from transformers.utils import logging as of_transformers


@contextmanager
def no_bars() -> Iterator[None]:
    """Show no progress bars of diffusers and transformers inside the block.

    Yields:
        Nothing.
    """
    libraries: list[ModuleType] = [of_diffusers, of_transformers]
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()
