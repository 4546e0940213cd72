"""Call a run's observer between the steps of a stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from t2i.core.engine.context import Plan, RunContext
from t2i.core.engine.ema import Ema
from t2i.core.engine.observer import Moment
from t2i.core.engine.preparing import PreparedStage
from t2i.core.engine.random_state import random_state, set_random_state
from t2i.core.io.processes import everyones


@contextmanager
def as_sampled(prepared: PreparedStage, ema: Ema) -> Iterator[None]:
    """Put the model into evaluation mode with its averaged weights inside the block.

    Processes that share the weights out must enter the block together.

    Our noise is keyed, but a library may draw numbers from the global generators of torch, NumPy
    and Python. Their state is restored, so training does not depend on what is sampled.

    Args:
        prepared: The stage's networks.
        ema: The averaged weights.

    Yields:
        Nothing.
    """
    state = random_state()
    prepared.eval_mode()
    with ema.swapped(), prepared.whole():
        yield
    prepared.train_mode()
    set_random_state(state)


class Observing:
    """Calls the observer of a run, if it has one, during one stage.

    Args:
        context: The run.
        plan: The stage.
        prepared: The stage's networks.
        ema: The averaged weights.
    """

    def __init__(self, context: RunContext, plan: Plan, prepared: PreparedStage, ema: Ema) -> None:
        self._context, self._plan, self._prepared, self._ema = context, plan, prepared, ema

    def look(self) -> bool:
        """Call the observer if it is due. All processes must call this together.

        Returns:
            False if a signal arrived meanwhile, so that the run must stop before its next step.
        """
        context = self._context
        if context.observer is None:
            return True
        due = context.is_first and context.observer.due(self._moment())
        if self._prepared.sharding:
            due = everyones(due, context.accelerator.num_processes)[0]
        if due:
            with as_sampled(self._prepared, self._ema):
                if context.is_first:
                    context.stop.optional(self._observe)
        return not context.interrupted()

    def _observe(self) -> None:
        context = self._context
        if context.observer is not None:
            context.observer.observe(self._moment(), context.model, context.reporter.say)

    def _moment(self) -> Moment:
        state, name = self._context.state, self._plan.stage.name
        before = {stage["name"]: stage["steps"] for stage in state.stages}
        return Moment(
            name, self._plan.index == len(self._context.plans) - 1, state.step,
            {**before, name: state.stage_step}, state.clock, state.stage_clock,
        )  # fmt: skip
