"""Progress of sampling, on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from t2i.cli.output import note

if TYPE_CHECKING:  # it imports torch
    from t2i.core.interfaces.request import Progress

EVERY_SECONDS = 10.0


@dataclass(frozen=True)
class Shown:
    """What receives the progress of a request.

    Args:
        images: Function to call with (images done, images in all).
        steps: Function to call with (steps done, steps in all) of the batch that is sampled.
    """

    images: Progress
    steps: Progress


@contextmanager
def images() -> Iterator[Shown]:
    """Show progress while images are sampled.

    Yields:
        What receives the progress.
    """
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bar:
        whole = bar.add_task("sampling", total=None)
        batch = bar.add_task("steps", total=None, visible=False)
        yield Shown(
            lambda done, total: bar.update(whole, completed=done, total=total),
            lambda done, total: bar.update(batch, completed=done, total=total, visible=total > 1),
        )


def _lines() -> Shown:
    last, sampled = time.monotonic(), ""

    def due() -> bool:
        nonlocal last
        now = time.monotonic()
        if now - last < EVERY_SECONDS:
            return False
        last = now
        return True

    def say(done: int, total: int) -> None:
        nonlocal sampled
        sampled = f"sampled {done} of {total} images"
        if due():
            note(sampled)

    def step(done: int, total: int) -> None:
        if done < total and due():
            note(f"{sampled}{', ' if sampled else ''}step {done} of {total} of a batch")

    return Shown(say, step)
