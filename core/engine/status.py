"""The progress of training at one moment, and how it is said in words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LOSSES = 2
"""Losses that the bar on a terminal shows. All of them are in metrics.jsonl."""


@dataclass(frozen=True)
class Status:
    """The progress of training.

    Args:
        stage: Name of the stage.
        step: Steps done in the run.
        progress: Part of the run that is done, 0 to 1.
        rate: Images per second. None if unknown: no step was made yet.
        left: Seconds left in the run. None if unknown.
        losses: Mean losses of the steps before the last log line, by name. Empty before the first
            line of a stage.
        note: What else is known of the model, such as a score. "": nothing.
    """

    stage: str
    step: int
    progress: float
    rate: float | None
    left: float | None
    losses: Mapping[str, float]
    note: str = ""

    def words(self, losses: int | None = None) -> tuple[str, ...]:
        """Say where training is, in parts, the most important one first.

        Args:
            losses: Number of losses to name. None: all.

        Returns:
            Stage and step, the note, the losses, and images per second, as far as they are known.
        """
        named = list(self.losses.items())[:losses]
        rate = [] if self.rate is None else [f"{self.rate:.0f} images/s"]
        note = [self.note] if self.note else []
        told = [f"{name} {value:.4g}" for name, value in named]
        return (f"{self.stage}  step {self.step}", *note, *told, *rate)


class Showing(ABC):
    """A reporter that shows the progress of anything, and that of training in the same way.

    Attributes:
        losses: Number of losses that are shown. None: all.
    """

    losses: int | None = None

    @abstractmethod
    def show(self, progress: float | None, left: float | None, parts: Sequence[str]) -> None:
        """Show how far something is.

        Args:
            progress: The part that is done, 0 to 1. None: unknown.
            left: Seconds left. None: unknown.
            parts: What is being done, the most important part first.
        """

    def status(self, status: Status) -> None:
        """Show the progress, and the losses of a new line of the log.

        Args:
            status: The progress of training.
        """
        self.moved(status)

    def moved(self, status: Status) -> None:
        """Show the progress.

        Args:
            status: The progress of training.
        """
        self.show(status.progress, status.left, status.words(self.losses))
