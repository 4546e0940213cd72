"""Score the model of a stage now and then: log it, keep the best checkpoint, stop early."""

from __future__ import annotations

import math
from collections.abc import Mapping

from t2i.core.engine.context import Plan, RunContext
from t2i.core.engine.ema import Ema
from t2i.core.engine.grid_clock import GridClock
from t2i.core.engine.observing import as_sampled
from t2i.core.engine.preparing import PreparedStage
from t2i.core.engine.previews import CAPTIONS, PER_CAPTION, StagePreviews
from t2i.core.engine.saving import Saving
from t2i.core.engine.scores import Score
from t2i.core.engine.validation import Validation
from t2i.core.errors import UserError
from t2i.core.io.processes import everyones


class StageScores:
    """Scores the model of a stage: its validation losses, and samples of the whole model.

    With `score_every` it is done at these steps. Else a clock tells when (`score_seconds`), so that
    the share `score_share` of the time is not exceeded.

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
        self._every, by_clock = settings.score_every, settings.score_seconds
        self.clock = GridClock(
            None if self._every else by_clock, first=by_clock or 0.0, share=settings.score_share
        )
        self._found: dict[str, Score] | None = None

    def due(self) -> bool:
        """Return whether scores are due at this step.

        Returns:
            True if so.
        """
        state = self._context.state
        if state.stage_step == 0 or state.scored.step == state.step:
            return False
        if self._every:
            return state.step % self._every == 0
        expected = self._expected()
        if expected is None:
            return False
        self.clock.expect(expected)
        return self.clock.due()

    def _expected(self) -> float | None:
        """Estimate the cost of the first scores in seconds; None: not yet known.

        A validated example costs as much as a trained one, an image as one of the grids.
        """
        context, state = self._context, self._context.state
        examples = state.stage_step * self._plan.shard.total
        validating = state.stage_clock / examples * self._validation.examples
        if context.examiner is None or self._grids.every is None:
            return validating
        if self._grids.cost is None:
            return None
        drawn = context.examiner.images if self._images.show_all else 0
        return validating + self._grids.cost * drawn / (CAPTIONS * PER_CAPTION)

    def run(self) -> None:
        """Score the model in the first process; the others wait. All must call this together.

        A signal cuts it short; it is then due again at this step when the run is resumed.
        """
        context, state = self._context, self._context.state
        self._found = None
        sampled = context.examiner is not None and self._images.show_all
        with self.clock.drawing():
            if context.is_first:
                with as_sampled(self._prepared, self._ema):
                    context.stop.optional(lambda: self._score(sampled))
            found = everyones(self._found, context.accelerator.num_processes)[0]
            if found is not None:
                state.scored.step = state.step
                self._log(found)
                self._decide(found)
        state.scored.seconds += self.clock.cost or 0.0

    def _score(self, sampled: bool) -> None:
        """Compute all scores. Those of samples come first: they decide unless one is named."""
        found: dict[str, Score] = {}
        if sampled:
            found |= self._of_samples()
        found |= self._validation.scores()
        self._found = {n: score for n, score in found.items() if math.isfinite(score.value)}

    def _of_samples(self) -> Mapping[str, Score]:
        """Score samples. If that cannot be done, it is said, and training goes on without."""
        context = self._context
        try:
            return context.examiner.scores(context.model) if context.examiner else {}
        except UserError as error:
            context.reporter.say(f"warning: samples are not scored: {error}")
            context.examiner = None
            return {}

    def _log(self, found: Mapping[str, Score]) -> None:
        context, state = self._context, self._context.state
        if not found or not context.is_first:
            return
        context.log.add_scores({
            "stage": self._plan.stage.name, "step": state.step, "seconds": state.clock,
            "scores": {name: score.document() for name, score in found.items()},
        })  # fmt: skip

    def _decide(self, found: Mapping[str, Score]) -> None:
        """Compare the score that decides with the best one, and keep the checkpoint if it is."""
        context, state = self._context, self._context.state
        if not found:
            return
        wanted = context.settings.keep_best
        name = wanted if wanted is not None and wanted in found else next(iter(found))
        context.note = str(found[name])
        if state.scored.add(name, found[name], state.step) and name == wanted:
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
