"""Tell about every minute of training how many captions the samples show right."""

from __future__ import annotations

from t2i.core.engine.captions_right import TESTED
from t2i.core.engine.context import RunContext
from t2i.core.engine.ema import Ema
from t2i.core.engine.grid_clock import GridClock
from t2i.core.engine.observing import as_sampled
from t2i.core.engine.preparing import PreparedStage
from t2i.core.engine.previews import CAPTIONS, PER_CAPTION, Gallery
from t2i.core.engine.reporting import Verdict

EVERY = 60.0
"""Seconds between two tests."""

SHARE = 0.02
"""Largest share of the time that tests may take."""


class StageTest:
    """Tests the model of a stage, once its grids show samples of the whole model.

    Args:
        context: The run; `context.verdict` receives what is found.
        prepared: The stage's networks.
        ema: The averaged weights, which are tested.
        gallery: The grids of the run.
        grids: Says when a grid is due, and knows what one costs. Without grids by the clock nothing
            is tested.
    """

    def __init__(
        self,
        context: RunContext,
        prepared: PreparedStage,
        ema: Ema,
        gallery: Gallery,
        grids: GridClock,
    ) -> None:
        self._context, self._prepared, self._ema = context, prepared, ema
        self._gallery, self._grids = gallery, grids
        wanted = context.test is not None and grids.every is not None
        self.clock = GridClock(EVERY if wanted else None, first=EVERY, share=SHARE)

    def due(self) -> bool:
        """Return whether a test is due.

        The first one is expected to cost as much as a grid with as many samples.

        Returns:
            True if so.
        """
        if not self._gallery.shows_model or self._grids.cost is None:
            return False
        self.clock.expect(self._grids.cost * TESTED / (CAPTIONS * PER_CAPTION))
        return self.clock.due()

    def run(self) -> None:
        """Test the model in the first process; the others wait.

        A signal cuts the sampling short. Training does not depend on tests (`as_sampled`).
        """
        if self._context.is_first:
            with as_sampled(self._prepared, self._ema), self.clock.drawing():
                self._context.stop.optional(self._test)
        self._context.accelerator.wait_for_everyone()

    def _test(self) -> None:
        context, test = self._context, self._context.test
        assert test is not None
        right = test.right(context.model)
        context.verdict = Verdict(context.state.step, right, len(test.captions))
