"""The file of records: a Markdown page with a table, to which each speed run adds a line."""

from __future__ import annotations

from pathlib import Path

from t2i.benchmarks.report.table import DASH, cost
from t2i.benchmarks.speedrun.results import Entry, SpeedrunResults, minutes, with_interval
from t2i.core.errors import UserError
from t2i.core.io.files import read_file, write_bytes
from t2i.core.io.terminal import printable

COLUMNS = (
    "date", "benchmark", "model", "mark", "minutes", "steps", "arithmetic", "machine", "score",
    "seed", "changed", "note", "trained on", "command",
)  # fmt: skip
TITLE = "# Records of speed runs\n\n"
HEAD = f"| {' | '.join(COLUMNS)} |"
RULE = f"|{'---|' * len(COLUMNS)}"


def check_records(path: Path) -> None:
    """Check that lines can be added to a file, before anything is trained.

    Args:
        path: The file; it need not exist.

    Raises:
        UserError: It cannot be read, or holds no table of records.
    """
    lines = _lines(path)
    if lines and HEAD not in lines:
        raise UserError(
            f"--record {path}: it has no table of records, whose first line is '{HEAD}'; "
            "name a new file"
        )


def add_records(path: Path, results: SpeedrunResults) -> list[str]:
    """Add a line for each model at the end of the table in a file.

    Args:
        path: The file. If it does not exist, it is made.
        results: The speed runs.

    Returns:
        The lines.

    Raises:
        UserError: The file cannot be read or written, or holds no table of records.
    """
    check_records(path)
    lines = _lines(path) or [*TITLE.splitlines(), HEAD, RULE]
    end = lines.index(HEAD)
    while end < len(lines) and lines[end].startswith("|"):
        end += 1
    new = [_line(entry, results) for entry in results.entries]
    text = "\n".join([*lines[:end], *new, *lines[end:]]) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, text.encode())
    except OSError as error:
        raise UserError(
            f"--record {path}: cannot be written ({error.strerror}); name another file"
        ) from None
    return new


def _lines(path: Path) -> list[str]:
    """Return the lines of the file; none if it does not exist."""
    try:
        content = read_file(path, "--record") if path.exists() else b""
        return content.decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text in UTF-8"
        raise UserError(f"--record {path}: cannot be read ({reason}); name a new file") from None


def _line(entry: Entry, results: SpeedrunResults) -> str:
    """Return the line of a model. Several marks share its cells, with " / " between.

    A mark that was not reached has the steps and the arithmetic of the whole training.
    """
    marks, machine = entry.marks(), results.environment
    spent = [point or entry.points[-1] for _, point in marks]
    changed = ", ".join(f"{name}={value}" for name, value in entry.changed.items())
    cells = (
        results.created[:10],
        f"{results.benchmark}, {results.protocol['captions']} captions",
        f"{entry.model} ({entry.preset})",
        " / ".join(f"{target:g}" for target, _ in marks),
        " / ".join(minutes(point, entry) for _, point in marks),
        " / ".join(f"{point.step:,}" for point in spent),
        " / ".join(cost("arithmetic", point.operations) for point in spent),
        cost("machine", entry.machine_rate),
        with_interval(entry.last()),
        str(entry.seed),
        changed or DASH,
        results.note or DASH,
        f"{machine.get('device', '?')}, threads: {entry.threads}",
        f"`{results.command}`" if results.command else DASH,
    )
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """Make a text harmless in a table: on one line, without a bar that ends the cell."""
    return printable(" ".join(text.split())).replace("|", "\\|")
