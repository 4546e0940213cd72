"""Running checks, one after the other. Whatever a check raises becomes an outcome."""

from __future__ import annotations

import shlex
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from t2i.core.errors import Interrupted, UserError
from t2i.core.io.terminal import debugging, printable
from t2i.core.kit.conformance.catalogue import Check
from t2i.core.kit.conformance.outcome import Failed, Outcome, Skipped, State
from t2i.core.kit.conformance.workshop import Workshop
from t2i.core.registry.specs import import_object


def run_checks(checks: Iterable[Check], folder: Path) -> Iterator[Outcome]:
    """Run checks.

    Args:
        checks: The checks.
        folder: Folder for the runs that they make; the caller removes it.

    Yields:
        The outcome of each check, as soon as it is known.
    """
    workshop = Workshop(folder)
    for check in checks:
        yield run_check(check, workshop)


def run_check(check: Check, workshop: Workshop) -> Outcome:
    """Run one check.

    Args:
        check: The check.
        workshop: What the checks of this session share.

    Returns:
        Its outcome. An error within the check is a failure; only interrupts are raised.
    """
    function = import_object(check.path)
    started = time.perf_counter()
    state, detail = _attempt(function, workshop.subject(check))
    see = (
        f"T2I_DEBUG=1 t2i plugins check {shlex.quote(check.name)} --only {check.check}"
        if state == "FAILED"
        else ""
    )
    holds = str(function.__doc__).split("\n\n")[0]
    return Outcome(
        check.kind, check.name, check.check, " ".join(holds.split()), state,
        time.perf_counter() - started, printable(detail), see,
    )  # fmt: skip


def _attempt(function: object, subject: object) -> tuple[State, str]:
    """Call the function of a check, and return its state and detail."""
    assert callable(function)
    try:
        function(subject)
    except (KeyboardInterrupt, Interrupted):  # the engine turns signals into Interrupted
        raise
    except Skipped as error:
        return "skipped", str(error)
    except Failed as error:
        return "FAILED", str(error)
    except BaseException as error:  # SystemExit too
        if debugging():
            traceback.print_exception(error)
        kind = (
            "" if isinstance(error, UserError) else f"{type(error).__name__} in {_place(error)}: "
        )
        return "FAILED", f"{kind}{' '.join(str(error).split())[:300]}"
    return "ok", ""


def _place(error: BaseException) -> str:
    """Return the innermost line of the plugin's own code in a traceback.

    That is where an author should look. If there is none, it is the innermost line of all.
    """
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not _is_foreign_to_author(frame.filename)]
    frame = (theirs or list(frames))[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def _is_foreign_to_author(filename: str) -> bool:
    core = Path(__file__).parents[2]
    return Path(filename).is_relative_to(core) or "site-packages/torch/" in filename
