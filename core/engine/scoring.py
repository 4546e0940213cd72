"""Score the model of a stage now and then: log it, keep the best checkpoint, stop early."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

from t2i.core.engine.context import Plan, RunContext
from t2i.core.engine.ema import Ema
from t2i.core.engine.grid_clock import GridClock
from t2i.core.engine.observing import as_sampled
from t2i.core.engine.preparing import PreparedStage
from t2i.core.engine.previews import CAPTIONS, PER_CAPTION, StagePreviews
from t2i.core.engine.saving import Saving
from t2i.core.engine.scores import VALIDATION, Score
from t2i.core.engine.validation import Validation
from t2i.core.errors import UserError, in_one_line
from t2i.core.io.processes import everyones

VALIDATING = 0.2
"""Share of `score_share` that the validation losses may take; samples may take the rest."""


class StageScores:
    """Scores the model of a stage: its validation losses, and samples of the whole model.

    With `score_every` both are made at these steps. Else a clock of each tells when
    (`score_seconds`), so that the share `score_share` of the time is not exceeded.

    Args:
        context: The run, whose state holds the best score.
        plan: The stage.
        prepared: The stage's networks.
        ema: The averaged weights, which are scored.
        validation: Computes the validation losses.
        images: Writes the stage's grids, and tells whether they show the whole model.
        grids: Knows what a grid costs, from which the cost of the first scores is estimated.
        saving: Writes checkpoints.
    """

    def __init__(
        self,
        context: RunContext,
        plan: Plan,
        prepared: PreparedStage,
        ema: Ema,
        validation: Validation,
        images: StagePreviews,
        grids: GridClock,
        saving: Saving,
    ) -> None:
        self._context, self._plan, self._prepared, self._ema = context, plan, prepared, ema
        self._validation, self._images = validation, images
        self._grids, self._saving = grids, saving
        settings = context.settings
        self._every = settings.score_every
        seconds = None if self._every else settings.score_seconds
        shares = (VALIDATING * settings.score_share, (1 - VALIDATING) * settings.score_share)
        self._validating, self._sampling = (
            GridClock(seconds, first=seconds or 0.0, share=share) for share in shares
        )
        self._validates = self._samples = False  # what is due
        self._failed: set[str] = set()  # what is left out from now on
        self._found: tuple[str, dict[str, Score]] | None = None

    def begin(self) -> None:
        """Start the clocks: the stage begins now, or goes on."""
        self._validating.begin()
        self._sampling.begin()

    def due(self) -> bool:
        """Return whether scores are due at this step.

        Returns:
            True if so. Never while processes share the weights out.
        """
        state = self._context.state
        if state.stage_step == 0 or state.scored.step == state.step or self._prepared.sharding:
            return False
        if self._every:
            self._validates = self._samples = state.step % self._every == 0
        else:
            self._validates, self._samples = self._validation_due(), self._samples_due()
        return self._validates or self._samples

    def _validation_due(self) -> bool:
        """Return whether it is due by the clock.

        An example is expected to cost a third of what it costs in training, which goes backwards
        too.
        """
        state = self._context.state
        trained = state.stage_step * self._plan.shard.total
        self._validating.expect(state.stage_clock / trained * self._validation.examples / 3)
        return self._validating.due()

    def _samples_due(self) -> bool:
        """Return whether they are due by the clock. An image is expected to cost as in a grid."""
        examiner, grid = self._context.examiner, self._grids.cost
        if examiner is None or (grid is None and self._grids.every is not None):
            return False
        if grid is not None:
            self._sampling.expect(grid * examiner.images / (CAPTIONS * PER_CAPTION))
        return self._sampling.due() and self._images.show_all

    def run(self) -> None:
        """Score the model in the first process; the others wait. All must call this together.

        A signal cuts it short; it is then due again at this step when the run is resumed.
        """
        context, state, began = self._context, self._context.state, time.monotonic()
        self._found = None
        if context.is_first:
            sampled = context.examiner is not None and self._images.show_all
            with as_sampled(self._prepared, self._ema):
                context.stop.optional(lambda: self._score(sampled))
        found = everyones(self._found, context.accelerator.num_processes)[0]
        if found is not None:
            state.scored.step = state.step
            self._log(found[1])
            self._decide(*found)
        state.scored.seconds += time.monotonic() - began

    def _score(self, sampled: bool) -> None:
        """Compute the scores that are due, and find the name of the one that decides.

        That is `keep_best`; else the first score of samples, where the stage has some; else the
        first validation loss.
        """
        context = self._context
        examiner, found = context.examiner, dict[str, Score]()
        made = sampled and self._samples
        if made and examiner is not None:
            with self._sampling.drawing():
                found |= self._tried("samples", lambda: examiner.scores(context.model))
        if self._validates:
            with self._validating.drawing():
                found |= self._tried("held-out examples", self._validation.scores)
        wanted = context.settings.keep_best or ""
        if self._validates if wanted.startswith(VALIDATION) else made and context.is_score(wanted):
            self._saving.check_score(found)
        found = {n: score for n, score in found.items() if math.isfinite(score.value)}
        other = next(iter(found), "") if made or not sampled else ""
        self._found = wanted if wanted in found else other, found

    def _tried(self, what: str, scores: Callable[[], Mapping[str, Score]]) -> Mapping[str, Score]:
        """Compute scores. If that fails, it is said once in a stage, which goes on without them."""
        if what in self._failed:
            return {}
        try:
            return scores()
        except Exception as error:  # whatever a metric, or a model's trainer, raises
            self._failed.add(what)
            reason = error if isinstance(error, UserError) else in_one_line(error)
            self._context.reporter.say(f"warning: {what} are not scored: {reason}")
            return {}

    def _log(self, found: Mapping[str, Score]) -> None:
        context, state = self._context, self._context.state
        if not found or not context.is_first:
            return
        context.log.add_scores({
            "stage": self._plan.stage.name, "step": state.step, "seconds": state.clock,
            "scores": {name: score.document() for name, score in found.items()},
        })  # fmt: skip

    def _decide(self, name: str, found: Mapping[str, Score]) -> None:
        """Compare the score that decides with the best one, and keep the checkpoint if it is."""
        context, state = self._context, self._context.state
        if found and (name or not context.note):
            context.note = str(found[name or next(iter(found))])
        if not name:
            return
        best = state.scored.add(name, found[name], state.step)
        if best and name == context.settings.keep_best:
            self._saving.keep(found[name].value)

    def stops(self) -> bool:
        """Return whether the stage ends early (`stop_after`).

        Returns:
            True if the last scores were not better than the best one.
        """
        after = self._context.settings.stop_after
        return bool(after) and self._context.state.scored.since >= after

    def say_stopped(self) -> None:
        """Say why the stage ended early."""
        state = self._context.state
        scored, best = state.scored, Score.of(state.scored.best)
        self._context.reporter.say(
            f"stage {self._plan.stage.name} stopped early at step {state.step}: the last "
            f"{scored.since} scores '{scored.name}' were not better than the best by more than its "
            f"interval: {best}, step {scored.best_step}"
        )
