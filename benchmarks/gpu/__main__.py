"""Measure speed and memory of every paper's preset on this machine's device, with random weights.

    python -m t2i.benchmarks.gpu                       # at most eight minutes
    python -m t2i.benchmarks.gpu --minutes 30          # goes on with what is missing
    python -m t2i.benchmarks.gpu --models ldm,galip --presets thesis

Each measurement runs in a process of its own and is a line of the file of results. The same command
goes on where it stopped. The tables are printed in Markdown. No data set is read, and nothing is
downloaded: what has no random weights is a row that says so.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from t2i.benchmarks.gpu.plan import Measurement, planned
from t2i.benchmarks.gpu.table import tables
from t2i.core.errors import T2IError
from t2i.core.io.names import names_in
from t2i.core.registry.tables import registry

MEASURING = "t2i.benchmarks.gpu.measuring"
"""Module that makes one measurement."""


def read(path: Path) -> list[dict[str, Any]]:
    """Read a file of results.

    Args:
        path: The file. It need not exist.

    Returns:
        The measurements. A line that was cut off when the program was killed is left out.
    """
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def measured(measurement: Measurement, seconds: float, limit: float) -> dict[str, Any]:
    """Make a measurement in a process of its own.

    Args:
        measurement: What is measured.
        seconds: Time to repeat steps or images for.
        limit: Seconds after which the process is killed.

    Returns:
        The result, or `error`, in one line.
    """
    command = [sys.executable, "-m", MEASURING, *measurement.key().values(), str(seconds)]
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, env=offline, check=False
        )
    except subprocess.TimeoutExpired:
        return {"error": f"took more than {limit:.0f} s"}
    try:
        return dict(json.loads(ended.stdout.splitlines()[-1]))
    except (IndexError, ValueError):  # the process died: the system kills what takes all memory
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": f"ended with code {ended.returncode}: {last[:120]}"}


def missing(path: Path, wanted: Iterator[Measurement]) -> list[Measurement]:
    """List the measurements that a file of results lacks.

    Args:
        path: The file. It need not exist.
        wanted: All measurements.

    Returns:
        Those that are not in the file.
    """
    done = [Measurement(row["model"], row["preset"], row["way"]) for row in read(path)]
    return [measurement for measurement in wanted if measurement not in done]


def run(path: Path, wanted: Sequence[Measurement], minutes: float, seconds: float) -> int:
    """Make measurements and append them to a file, until the time is over.

    Args:
        path: The file of results.
        wanted: The measurements.
        minutes: Time for all of them.
        seconds: Time to repeat steps or images for, in each.

    Returns:
        The number of measurements that were left undone.
    """
    end = time.monotonic() + minutes * 60
    for number, measurement in enumerate(wanted):
        limit = min(LIMIT, end - time.monotonic())
        if limit < seconds:
            return len(wanted) - number
        result = measured(measurement, seconds, limit)
        if "error" in result and limit < LIMIT and time.monotonic() >= end:
            return len(wanted) - number  # cut off by the budget: measured next time
        with path.open("a") as file:
            file.write(json.dumps(measurement.key() | result) + "\n")
        print(f"{measurement.model} {measurement.preset} {measurement.way}: {result}", flush=True)
    return 0


LIMIT = 90.0
"""Seconds for one measurement, its start included."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, and print the tables.

    Args:
        arguments: The command's arguments. None: those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="python -m t2i.benchmarks.gpu", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all (default: 8)")
    parser.add_argument("--models", help="names, with commas (default: all)")
    parser.add_argument("--presets", help="names, with commas (default: the papers')")
    parser.add_argument("--ways", help="names, with commas (default: all)")
    parser.add_argument("--seconds", type=float, default=2.0, help="time to repeat each for")
    parser.add_argument("--out", type=Path, default=Path("gpu.jsonl"), help="file of results")
    given = parser.parse_args(arguments)
    models, ways = names_in(given.models), names_in(given.ways)
    try:
        for name in models:
            registry().models[name]
        wanted = missing(given.out, planned(names_in(given.presets), models))
    except T2IError as error:
        sys.exit(str(error))
    wanted = [each for each in wanted if not ways or each.way in ways]
    left = run(given.out, wanted, given.minutes, given.seconds)
    print("\n" + tables(read(given.out)))
    if left:
        print(f"\n{left} measurements are left: the same command goes on")


if __name__ == "__main__":
    main()
