"""Observers of a run: called between its steps, with the model as it would be sampled then."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from t2i.core.models.model import Model


@dataclass(frozen=True)
class Moment:
    """How far a run is between two steps.

    Args:
        stage: Name of the stage.
        last: Whether it is the run's last stage.
        step: Steps done in the run.
        steps: Steps done in each stage that has begun, by the stage's name.
        seconds: Seconds of training in the run, as a budget in minutes counts them.
        stage_seconds: Seconds of training in this stage.
    """

    stage: str
    last: bool
    step: int
    steps: Mapping[str, int]
    seconds: float
    stage_seconds: float


class Observer(Protocol):
    """Observes a run without a change of what is trained.

    It is called in the first process, outside the clock of training. An exception that it raises
    ends the run; the newest checkpoint stays. It must raise none if there are several processes.
    """

    def due(self, moment: Moment) -> bool:
        """Tell whether to observe the model now. Called before every step, so it must be cheap.

        Args:
            moment: How far the run is.

        Returns:
            True if `observe` is to be called.
        """

    def observe(self, moment: Moment, model: Model, say: Callable[[str], None]) -> None:
        """Observe the model, in evaluation mode and with the averaged weights.

        A signal cuts the call short. The run then stops at this step, and when it is resumed, `due`
        is called at this step again.

        Args:
            moment: How far the run is.
            model: The model.
            say: Reports one line.
        """
