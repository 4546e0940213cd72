"""Train several runs of a benchmark at once, each in its own process with a share of the cores.

Small networks gain less from a second thread than two of them gain from a core each.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from t2i.benchmarks.run.training_process import order
from t2i.core.engine.context import signal_name
from t2i.core.engine.reporting import Moving, Reporter
from t2i.core.engine.signals import StopRequest, stop_requests
from t2i.core.engine.status import Status
from t2i.core.errors import Interrupted, T2IError, UserError
from t2i.core.runs.configure import RunConfig

AT_MOST = 4
"""Largest number of trainings at once, unless the user says how many: each needs its own memory."""

POLL = 0.2
"""Seconds between two looks for a signal."""

Message = tuple[str, Mapping[str, Any]]
"""Name of a row, and what its process says; {} when it has ended."""


def jobs_at_once(trainings: int, cores: int, *, gpu: bool) -> int:
    """Choose how many trainings run at once.

    The number divides the number of trainings, so that all of them get as many cores and no core is
    idle at the end.

    Args:
        trainings: Number of trainings of the benchmark.
        cores: Cores of the processor that this process may use.
        gpu: Whether they train on a GPU, which they would share.

    Returns:
        The number, 1 to 4.
    """
    if gpu:
        return 1
    fitting = range(1, min(trainings, cores, AT_MOST) + 1)
    return max((n for n in fitting if trainings % n == 0), default=1)


@dataclass(frozen=True)
class Training:
    """A training for a process of its own.

    Args:
        label: Name of its row.
        out: The run's folder.
        config: The run's configuration.
        begun: Whether the run is there and is to be resumed.
    """

    label: str
    out: Path
    config: RunConfig
    begun: bool


@dataclass
class _Processes:
    """The processes of trainings at once, and what they have said so far."""

    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    messages: queue.Queue[Message] = field(default_factory=queue.Queue)
    errors: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)

    def start(self, training: Training, threads: int, command: str) -> None:
        """Start a training. Its signals come from this process alone, not from the terminal."""
        module = "t2i.benchmarks.run.training_process"
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, encoding="utf-8", start_new_session=True,
        )  # fmt: skip
        self.running[training.label] = process
        wanted = order(training.out, training.config, threads, command, begun=training.begun)
        print(json.dumps(wanted), file=process.stdin, flush=True)
        threading.Thread(target=self._listen, args=(training.label, process), daemon=True).start()

    def _listen(self, label: str, process: subprocess.Popen[str]) -> None:
        """Queue the messages of a process, the lines that it writes to stderr, and its end."""
        repeating = threading.Thread(target=self._repeat, args=(label, process), daemon=True)
        repeating.start()
        for line in process.stdout or ():
            self.messages.put((label, json.loads(line)))
        repeating.join()
        process.wait()
        for pipe in filter(None, (process.stdin, process.stdout, process.stderr)):
            pipe.close()
        self.messages.put((label, {}))

    def _repeat(self, label: str, process: subprocess.Popen[str]) -> None:
        for line in process.stderr or ():
            if line.strip():
                self.messages.put((label, {"say": line.rstrip()}))

    def follow(self, reporters: Mapping[str, Reporter], stop: StopRequest) -> None:
        """Pass on what the processes say until all have ended, and the first signal to them."""
        told = 0
        while self.running:
            if stop.number and not told:
                told = stop.number
                for process in self.running.values():
                    process.send_signal(told)
            try:
                label, message = self.messages.get(timeout=POLL)
            except queue.Empty:
                continue
            self._take(label, message, reporters[label])

    def _take(self, label: str, message: Mapping[str, Any], reporter: Reporter) -> None:
        if "status" in message:
            reporter.status(Status(**message["status"]))
        elif "moved" in message:
            if isinstance(reporter, Moving):
                reporter.moved(Status(**message["moved"]))
        elif "say" in message:
            reporter.say(f"{label}: {message['say']}")
        elif "error" in message:
            self.errors[label] = message
            others = [name for name in self.running if name != label]
            if others and not message["interrupted"]:
                go = f"{', '.join(others)} {'goes' if len(others) == 1 else 'go'} on"
                reporter.say(f"{label} failed: {message['error']} ({go})")
        else:
            self.codes[label] = self.running.pop(label).returncode
            reporter.close()

    def end(self) -> None:
        """End what still runs, after an error of this process: each saves its run and stops."""
        for process in self.running.values():
            process.terminate()
        while self.running:
            label, message = self.messages.get()
            if not message:
                del self.running[label]

    def failure(self, label: str) -> T2IError | None:
        """Return the error that a training ended with, if it did."""
        code, told = self.codes[label], self.errors.get(label)
        if told is None:
            if code == 0:
                return None
            how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with code {code}"
            return T2IError(f"{label}: its training {how}; the same command resumes it")
        if told["interrupted"]:
            return Interrupted(told["error"], code - 128)
        kind = UserError if code == UserError.exit_code else T2IError
        return kind(f"{label}: {told['error']}")


def train_together(
    trainings: Sequence[Training], threads: int, reporters: Mapping[str, Reporter], command: str
) -> None:
    """Train runs at once, each in its own process.

    If one fails, the others go on to their ends. A signal stops all of them, after they have saved
    their runs.

    Args:
        trainings: The trainings.
        threads: Threads that each of them computes with.
        reporters: Who receives the progress of each, by the name of its row.
        command: The command line, recorded with the runs.

    Raises:
        UserError: The first one that a training raised.
        Interrupted: A signal stopped the trainings.
        T2IError: The first one that a training raised, or a process was killed.
    """
    processes = _Processes()
    with stop_requests() as stop:
        try:
            for training in trainings:
                processes.start(training, threads, command)
            processes.follow(reporters, stop)
        finally:
            processes.end()
    failures = [processes.failure(training.label) for training in trainings]
    for failure in filter(None, failures):
        raise failure
    if stop.number:
        told = f"{signal_name(stop.number)}: all trainings are complete; the same command goes on"
        raise Interrupted(told, stop.number)
