"""Stop the process that trains a run, and resume a run in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from t2i.core.errors import UserError
from t2i.core.io.locks import LOCK
from t2i.core.runs.folder import Run
from t2i.core.runs.listing import is_training

PROCESSES = Path("/proc")
COMMAND = (sys.executable, "-P", "-m", "t2i.cli", "train", "--resume")
"""Resumes the run whose folder follows."""
RESUME_LOG = "resume.log"
"""File in a run's folder with what the processes that resumed it from the page have printed."""


def stop(run: Run) -> int:
    """Send SIGINT to the process that trains a run: it saves the run and stops.

    The process is found by the run's lock, which it holds while this function looks and while the
    signal is sent. No other process gets the signal.

    Args:
        run: The run.

    Returns:
        Number of the process.

    Raises:
        UserError: Nothing trains in the folder, its process cannot be found or is another
            user's, or this system does not say which process holds a lock.
    """
    pid = holder(run.path / LOCK)
    if pid == os.getpid():
        raise UserError(f"run {run.path}: this page holds its lock at the moment; try again")
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        raise UserError(f"run {run.path}: its process has ended meanwhile") from None
    try:
        # The descriptor means this process alone, also if its number is used again.
        if holder(run.path / LOCK) != pid:
            raise UserError(f"run {run.path}: another process has taken it over; try again")
        signal.pidfd_send_signal(descriptor, signal.SIGINT)
    except PermissionError:
        raise UserError(
            f"run {run.path}: process {pid} is another user's; ask them to stop it"
        ) from None
    finally:
        os.close(descriptor)
    return pid


def holder(lock: Path) -> int:
    """Find the process that holds a lock.

    Args:
        lock: The lock's file.

    Returns:
        Number of the process.

    Raises:
        UserError: No process that can be seen holds it.
    """
    if not (PROCESSES / "self" / "fdinfo").is_dir() or not hasattr(os, "pidfd_open"):
        raise UserError(
            "this system does not say which process trains a run; press Ctrl-C where it runs"
        )
    try:
        wanted = lock.stat()
    except OSError:
        raise UserError(f"run {lock.parent}: no process trains in it") from None
    for process in PROCESSES.iterdir():
        if process.name.isdecimal():
            with suppress(OSError):  # it ends, or is another user's
                for info in _of_file(process, wanted):
                    if (pid := _lock_owner(info)) is not None:
                        return pid
    raise UserError(f"run {lock.parent}: no process of this user trains in it")


def _of_file(process: Path, wanted: os.stat_result) -> Iterator[str]:
    """Yield what the system says of a process's descriptors of a file."""
    for descriptor in (process / "fd").iterdir():
        with suppress(OSError):  # it is closed meanwhile
            if os.path.samestat(descriptor.stat(), wanted):
                yield (process / "fdinfo" / descriptor.name).read_text("utf-8")


def _lock_owner(info: str) -> int | None:
    """Return the process that took the lock (flock) of a descriptor. None: it has none.

    A child inherits the descriptor, but the system names the process that took the lock.
    """
    for line in info.splitlines():
        words = line.split()
        if words[:1] == ["lock:"] and words[2:3] == ["FLOCK"] and words[4:5] == ["WRITE"]:
            return int(words[5]) or None
    return None


class Resumed:
    """The processes that this page has started to resume runs. They outlive the page."""

    def __init__(self) -> None:
        self._processes: dict[Path, subprocess.Popen[bytes]] = {}

    def start(self, run: Run) -> Path:
        """Start `t2i train --resume RUN` in a session of its own.

        Args:
            run: The run.

        Returns:
            The file that has what the process prints.

        Raises:
            UserError: The run is complete or is trained already, or the process cannot be started.
        """
        if run.complete:
            raise UserError(f"run {run.path}: it is complete")
        if is_training(run) or self.running(run):
            raise UserError(f"run {run.path}: a process trains in it already")
        log = run.path / RESUME_LOG
        try:
            with open(log, "ab") as output:
                self._processes[run.path] = subprocess.Popen(
                    [*COMMAND, str(run.path)], stdin=subprocess.DEVNULL, stdout=output,
                    stderr=output, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise UserError(
                f"run {run.path}: cannot be resumed ({error.strerror or error}); "
                f"run 't2i train --resume {run.path}' on a terminal"
            ) from None
        return log

    def running(self, run: Run) -> bool:
        """Tell whether a process that this page started for a run still runs.

        Args:
            run: The run.

        Returns:
            True if so.
        """
        process = self._processes.get(run.path)
        return process is not None and process.poll() is None

    def complaint(self, run: Run) -> str:
        """Return what the last process for a run printed last, if it failed.

        Args:
            run: The run.

        Returns:
            The last line of its log; "" if it runs, or did not fail, or there was none. A process
            that was stopped by a signal did not fail.
        """
        process = self._processes.get(run.path)
        if process is None or process.poll() in (None, 0, 128 + signal.SIGINT):
            return ""
        try:
            lines = (run.path / RESUME_LOG).read_text("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return next((line for line in reversed(lines) if line.strip()), "")
