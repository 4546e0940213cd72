"""The runs that the page shows, read once for all who look at it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.runs.folder import Run, is_run
from t2i.core.runs.listing import ListedRun, describe, last_line, list_runs
from t2i.web.site import Site
from t2i.web.watch.history import History
from t2i.web.watch.log import GrowingLog
from t2i.web.watch.page import planned

FRESH = 2.0
"""Seconds for which a list of runs counts as new."""

SHARE = 0.1
"""Largest share of the time that is spent on listing runs."""

MOST_OPEN = 8
"""Most logs that are kept in memory; the one not looked at for longest is dropped."""


@dataclass
class _Opened:
    log: GrowingLog
    history: History = field(default_factory=History)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Watching:
    """The runs under the site's folder and its named ones. Several threads may use it at once.

    Args:
        site: What the page serves. Its folder of runs need not exist yet.
        clock: Returns the time in seconds.
    """

    def __init__(self, site: Site, clock: Callable[[], float] = time.monotonic) -> None:
        self._site, self._clock = site, clock
        self._lock = threading.Lock()
        self._found: dict[str, ListedRun] = {}
        self._until = -1.0
        self._opened: OrderedDict[Path, _Opened] = OrderedDict()

    def runs(self) -> dict[str, ListedRun]:
        """List the runs, the one last worked on first.

        Returns:
            What each run is, by its name on the page: its path below the folder of runs, or the
            name that the user gave it. At most `FRESH` seconds old, or more if there are so many
            runs that listing them takes long.
        """
        with self._lock:
            began = self._clock()
            if began >= self._until:
                self._found = self._listed()
                ended = self._clock()
                self._until = ended + max(FRESH, (ended - began) / SHARE)
            return dict(self._found)

    def _listed(self) -> dict[str, ListedRun]:
        try:
            below = list_runs(self._site.runs)
        except (UserError, OSError):  # there is no such folder yet
            below = []
        found = {
            _below(run.run.path, self._site.runs): run
            for run in below
            if self._site.allowed(run.run.path)
        }
        for name, place in self._site.named.items():
            if isinstance(place, Path) and is_run(place):
                found.setdefault(name, describe(Run(place)))
        return found

    def find(self, name: str | None) -> ListedRun:
        """Find a run by its name on the page. Other names and paths are refused.

        Args:
            name: What a browser has sent.

        Returns:
            The run, as `runs` lists it.

        Raises:
            UserError: There is no such run, or it has vanished.
        """
        run = self.runs().get(name or "")
        if run is None:
            raise UserError(f"no run '{name}': it has vanished, or was never here; choose another")
        return run

    @contextmanager
    def history(self, run: Run) -> Iterator[History]:
        """Read what is new in a run's log.

        Args:
            run: One of the runs.

        Yields:
            All that its log has said. It begins anew if the log was replaced. It does not change
            within the block.
        """
        with self._lock:
            opened = self._opened.setdefault(run.path, _Opened(GrowingLog(run.metrics_file)))
            self._opened.move_to_end(run.path)
            while len(self._opened) > MOST_OPEN:
                self._opened.popitem(last=False)
        with opened.lock:
            anew, entries = opened.log.read()
            if anew:
                opened.history = History()
            for entry in entries:
                opened.history.add(entry)
            yield opened.history

    def rows(self) -> list[tuple[str, ListedRun, History | None, float | None]]:
        """Collect what the table of runs shows, from the last line of each log.

        Returns:
            For each run its name, what it is, the history of that line, and the seconds left; None
            for runs that do not train at present.
        """
        return [(name, run, *_present(run)) for name, run in self.runs().items()]


def _present(run: ListedRun) -> tuple[History | None, float | None]:
    if run.state != "training":
        return None, None
    history = History()
    history.add(last_line(run.run))
    return history, history.seconds_left(*planned(run))


def _below(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path != folder else path.name
