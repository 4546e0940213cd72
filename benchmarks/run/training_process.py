"""A process that trains one run of a benchmark, beside others.

It is started as `python -P -m t2i.benchmarks.run.training_process`. It reads its order, one line of
JSON, from stdin, and writes its progress to stdout as lines of JSON. When stdin ends, because the
benchmark was killed, it saves the run and stops.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import torch

from t2i.benchmarks.run.in_training import training_scores
from t2i.core import engine
from t2i.core.engine.status import Status
from t2i.core.errors import Interrupted, T2IError
from t2i.core.io.terminal import quiet
from t2i.core.runs.configure import RunConfig


class PipeReporter:
    """The engine's reporter that writes lines of JSON.

    Args:
        stream: Where they are written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def send(self, **message: Any) -> None:
        """Write one message. If nobody reads any more, it is lost.

        Args:
            **message: Its fields.
        """
        with suppress(BrokenPipeError):
            print(json.dumps(message), file=self._stream, flush=True)

    def say(self, text: str) -> None:
        """Send an event.

        Args:
            text: One line.
        """
        self.send(say=text)

    def status(self, status: Status) -> None:
        """Send the progress.

        Args:
            status: The progress of training.
        """
        self.send(status=asdict(status))

    def moved(self, status: Status) -> None:
        """Send the progress between two logged steps.

        Args:
            status: The progress of training.
        """
        self.send(moved=asdict(status))

    def close(self) -> None:
        """Do nothing: the end of the process is the end of the messages."""


def order(
    out: Path, config: RunConfig, threads: int, command: str, *, begun: bool
) -> Mapping[str, Any]:
    """Write the order for such a process.

    Args:
        out: The run's folder.
        config: The run's configuration.
        threads: Threads that the process computes with.
        command: The command line, recorded with the run.
        begun: Whether the run is there and is to be resumed.

    Returns:
        The order, as JSON.
    """
    return {
        "out": str(out), "config": config.dump(), "threads": threads, "command": command,
        "begun": begun,
    }  # fmt: skip


def carry_out(order: Mapping[str, Any], reporter: PipeReporter) -> int:
    """Train or resume the run of an order.

    Args:
        order: What `order` wrote.
        reporter: Gets the progress, and the error that ends the training.

    Returns:
        The exit code of the process.
    """
    torch.set_num_threads(order["threads"])
    out = Path(order["out"])
    try:
        if order["begun"]:
            engine.resume(out, reporter=reporter, examining=training_scores)
        else:
            config = RunConfig.parse(order["config"], f"the order of {out}")
            engine.train(
                config, out, reporter=reporter, command=order["command"], examining=training_scores
            )
    except T2IError as error:
        reporter.send(error=str(error), interrupted=isinstance(error, Interrupted))
        return error.exit_code
    return 0


def _stop_at_the_end(stream: TextIO) -> None:
    """Stop this process, as SIGTERM does, once nothing can be read from a stream any more."""
    stream.read()
    signal.raise_signal(signal.SIGTERM)


def main() -> int:
    """Run the process.

    Returns:
        Its exit code.
    """
    quiet()
    # What libraries print goes to stderr, not among the messages.
    messages = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    wanted = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_at_the_end, args=(sys.stdin,), daemon=True).start()
    return carry_out(wanted, PipeReporter(messages))


if __name__ == "__main__":
    sys.exit(main())
