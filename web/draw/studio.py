"""Everything behind the tab Draw: the models, the queue, and the visitors' drawings.

The tab Judge samples its studies with the same models, in the same queue.

It imports neither torch nor Gradio before there is something to draw.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from t2i.web.draw.album import Album, Drawing
from t2i.web.draw.desk import Desk, Job
from t2i.web.draw.shelf import Shelf
from t2i.web.draw.sources import chosen
from t2i.web.draw.wish import MODELS, Wish
from t2i.web.site import Site

VISITORS = 500
"""Visitors whose drawings are kept; the first to come is the first to be forgotten."""


class Studio:
    """Everything behind the tab: the models, the queue, and the visitors' albums.

    Args:
        site: What the page serves.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.desk = Desk(site.limits.waiting)
        self._shelf: Shelf | None = None
        self._albums: dict[str, Album] = {}
        self._lock = threading.Lock()
        self._folder = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())

    def album(self, visitor: str) -> Album:
        """Return the album of a visitor.

        Args:
            visitor: Key of the session.

        Returns:
            The album, a new one at the first call.
        """
        with self._lock:
            if visitor not in self._albums:
                if len(self._albums) >= VISITORS:
                    self._albums.pop(next(iter(self._albums))).close()
                self._albums[visitor] = Album(self._folder)
            return self._albums[visitor]

    def leave(self, visitor: str) -> None:
        """Forget a visitor: cancel the drawing, remove the files.

        Args:
            visitor: Key of the session.
        """
        self.desk.cancel(visitor)
        with self._lock:
            album = self._albums.pop(visitor, None)
        if album is not None:
            album.close()

    def begin(self, visitor: str, wish: Wish) -> tuple[Job, Drawing]:
        """Put a drawing into the queue.

        Args:
            visitor: Key of the session.
            wish: What is to be drawn.

        Returns:
            The job, and the drawing that it fills.

        Raises:
            UserError: The wish cannot be fulfilled, or the queue is full.
        """
        places = {one.name: one for one in chosen(self.site, list(wish.models), MODELS)}
        wish.check(self.site.limits)
        started: list[Drawing] = []
        ready = threading.Event()

        def work(job: Job, shelf: Shelf) -> None:
            from t2i.web.draw.drawing import draw

            ready.wait()
            if started:
                draw(started[0], places, shelf, job)

        job = self.submit(visitor, work)
        try:
            started.append(self.album(visitor).new(wish))
        finally:
            ready.set()
        return job, started[0]

    def submit(self, visitor: str, work: Callable[[Job, Shelf], None]) -> Job:
        """Put work that needs models into the queue.

        Args:
            visitor: Key of the session.
            work: Does it, with the job and the loaded models.

        Returns:
            The job.

        Raises:
            UserError: The queue is full, or the visitor has a job in it.
        """

        def with_models(job: Job) -> None:
            job.text = "loading torch" if self._shelf is None else ""
            from t2i.web.draw.drawing import loader

            self._shelf = self._shelf or Shelf(self.site.limits, loader(self.site))
            work(job, self._shelf)

        return self.desk.submit(visitor, with_models)
