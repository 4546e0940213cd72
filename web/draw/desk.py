"""The queue of drawings: one at a time over all visitors. It imports neither torch nor Gradio."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from typing import Any

from t2i.core.errors import T2IError, UserError, in_one_line, of_system, out_of_memory
from t2i.core.io.terminal import debugging, note

ENDED = ("done", "cancelled", "failed")
"""States of a job that do not change any more."""


class Cancelled(Exception):
    """The visitor does not wish the drawing any more."""


class Job:
    """One drawing in the queue.

    Args:
        owner: Whose it is: the key of a visitor's session.
        work: Does it. It receives this job, and calls `check` between steps.

    Attributes:
        state: "waiting", "drawing", or one of ENDED.
        text: What is done at present.
        done: Share of the work that is done, from 0 to 1.
        previews: The images so far of the batch that is being sampled, uint8 (B, H, W, 3), or None.
        error: Why the job failed.
    """

    def __init__(self, owner: str, work: Callable[[Job], None]) -> None:
        self.owner = owner
        self.state = "waiting"
        self.text = ""
        self.done = 0.0
        self.previews: Any = None
        self.error = ""
        self._work = work
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        """Ask the work to stop. It does so between two steps."""
        self._cancelled.set()

    def check(self) -> None:
        """Stop the work here if the visitor cancelled it.

        Raises:
            Cancelled: The visitor did.
        """
        if self._cancelled.is_set():
            raise Cancelled

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED

    def run(self) -> None:
        """Do the work, whose state is "drawing". What it raises is kept as `error`."""
        try:
            self.check()
            self._work(self)
            self.state = "done"
        except Cancelled:
            self.state = "cancelled"
        except Exception as error:
            self.error = explained(error)
            self.state = "failed"


class Desk:
    """Does jobs one after the other, in a thread of its own.

    Args:
        most: The most jobs that wait.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, owner: str, work: Callable[[Job], None]) -> Job:
        """Put a job at the end of the queue.

        Args:
            owner: Key of the visitor's session.
            work: Does the job.

        Returns:
            The job.

        Raises:
            UserError: The queue is full, or the visitor has a job in it.
        """
        with self._changed:
            if self._closed:
                raise UserError("the server is stopping: start it again")
            if any(job.owner == owner and not job.ended for job in self._jobs):
                raise UserError("your last drawing is not done: wait for it, or cancel it")
            if len(self._jobs) > self._most:
                raise UserError(f"{self._most} drawings wait already: try again in a while")
            job = Job(owner, work)
            self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="drawing", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return job

    def place(self, job: Job) -> int:
        """Tell how many jobs come before a job.

        Args:
            job: A job.

        Returns:
            Their number; 0 if it is being done or has ended.
        """
        with self._changed:
            return self._jobs.index(job) if job in self._jobs else 0

    def cancel(self, owner: str) -> None:
        """Cancel the jobs of a visitor.

        Args:
            owner: Key of the visitor's session.
        """
        with self._changed:
            for job in [job for job in self._jobs if job.owner == owner]:
                job.cancel()
                if job.state == "waiting":
                    job.state = "cancelled"
                    self._jobs.remove(job)

    def close(self, seconds: float = 5.0) -> None:
        """Cancel everything, and wait for the job that is being done.

        Args:
            seconds: How long to wait at most.
        """
        with self._changed:
            self._closed = True
            for job in self._jobs:
                job.cancel()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(seconds)

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs or self._closed)
                if self._closed and not self._jobs:
                    return
                job = self._jobs[0]
                job.state = "drawing"  # from here on `cancel` leaves it in the list
            job.run()
            with self._changed:
                self._jobs.remove(job)
                self._changed.notify_all()


def explained(error: Exception) -> str:
    """Explain an error to a visitor. One that nobody foresaw is also told on the terminal.

    Args:
        error: What the work raised.

    Returns:
        One line.
    """
    if isinstance(error, T2IError):
        return str(error)
    if out_of_memory(error):
        return "there is not enough memory: choose fewer images, or smaller models"
    if isinstance(error, OSError) and (line := of_system(error)):
        return line
    note(f"warning: drawing: {in_one_line(error)}")
    if debugging():
        traceback.print_exception(error)
    return f"unexpected {in_one_line(error)}"
