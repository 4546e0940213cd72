"""The file of votes: one JSON object a line, appended so that a kill loses no vote."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from filelock import FileLock
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter

from t2i.core.errors import UserError
from t2i.core.io.documents import checked, parse_json, read_bytes
from t2i.core.io.files import check_regular, sync_folder
from t2i.core.io.locks import take_or_wait
from t2i.core.io.terminal import note

QUESTIONS = {
    "overall": "Which image is better?",
    "faithful": "Which image shows what the caption says?",
    "real": "Which image looks more real?",
}
"""The questions that the page asks. A file may hold votes on others."""
REMEDY = "correct the line, or remove it"


def _with_zone(text: str) -> str:
    """Check that a text is a date and time with its zone."""
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without its zone")
    return text


Name = Annotated[str, Field(min_length=1, max_length=200)]
Caption = Annotated[str, Field(max_length=20_000)]
Time = Annotated[str, Field(max_length=40), AfterValidator(_with_zone)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class PairVote:
    """One judgement of two images of the same caption and noise.

    Args:
        rater: Name of who voted: a random one, or one that the rater has typed.
        question: The question, such as those of `QUESTIONS`.
        caption: The caption of both images.
        item: Key of the caption and the noise. Votes on the same item are on the same images.
        left: Name of the model whose image was on the left.
        right: Name of the model whose image was on the right, another one.
        choice: "left", "right", "tie" (both are as good), or "bad" (both are bad).
        order: Which of the rater's votes it is, from 0.
        time: When the vote was made, ISO 8601 with its zone.
        seconds: How long the rater looked at the images.
    """

    rater: Name
    question: Name
    caption: Caption
    item: Name
    left: Name
    right: Name
    choice: Literal["left", "right", "tie", "bad"]
    order: Annotated[int, Field(ge=0)]
    time: Time
    seconds: Seconds

    __pydantic_config__ = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class ScaleVote:
    """One judgement of one image on a scale.

    Args:
        rater: As for `PairVote`.
        question: As for `PairVote`.
        caption: The caption of the image.
        item: Key of the caption and the noise.
        model: Name of the model.
        value: The grade, from 0 (worst) to 4 (best).
        order: As for `PairVote`.
        time: As for `PairVote`.
        seconds: As for `PairVote`.
    """

    rater: Name
    question: Name
    caption: Caption
    item: Name
    model: Name
    value: Annotated[int, Field(ge=0, le=4)]
    order: Annotated[int, Field(ge=0)]
    time: Time
    seconds: Seconds

    __pydantic_config__ = ConfigDict(extra="forbid")


Vote = PairVote | ScaleVote
"""Either kind of vote."""

_KINDS: dict[str, TypeAdapter[Any]] = {
    "pair": TypeAdapter(PairVote),
    "scale": TypeAdapter(ScaleVote),
}


def append_vote(path: Path, vote: Vote) -> None:
    """Append a vote to a file. It is on the disk when this returns.

    Several processes and threads may append to one file. What a killed one left of a last line is
    removed first.

    Args:
        path: The file. It is created, with its folder, if it does not exist.
        vote: The vote.

    Raises:
        UserError: The vote is no valid one, or the file holds something else than votes.
    """
    kind = "pair" if isinstance(vote, PairVote) else "scale"
    document = {"kind": kind, **asdict(vote)}
    _parsed(document, "this vote", "a vote that is wrong is not written")
    line = json.dumps(document, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    check_regular(path, "votes")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    take_or_wait(lock, lambda: None)
    try:
        with open(path, "ab+") as file:
            _mend_end(file, path)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    finally:
        lock.release()


def _mend_end(file: BinaryIO, path: Path) -> None:
    """Make a file end with a whole line: remove the torn one that a kill may have left."""
    size = file.seek(0, os.SEEK_END)
    start, last = size, b""
    while start and b"\n" not in last:
        start = max(0, start - 2**16)
        file.seek(start)
        last = file.read(size - start)
    whole = last.rfind(b"\n") + 1
    torn = last[whole:]
    if not torn:
        return
    try:
        _read_line(torn, str(path))
        file.write(b"\n")
    except UserError:
        if not torn.startswith(b'{"kind"'[: len(torn)]):
            raise UserError(f"{path} holds no votes: choose another file") from None
        file.truncate(start + whole)


def read_votes(paths: Iterable[Path]) -> list[Vote]:
    """Read the votes of one or more files.

    A last line that is torn, as a kill may leave it, is skipped with a warning on stderr.

    Args:
        paths: The files.

    Returns:
        The votes, in the order of the files and of their lines.

    Raises:
        UserError: A file cannot be read, or holds a wrong line. The error names file and line.
    """
    return [vote for path in paths for vote in _votes_in(path)]


def _votes_in(path: Path) -> Iterable[Vote]:
    try:
        check_regular(path, "votes")
        *lines, last = read_bytes(path).split(b"\n")
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror or error}; give a file of votes, as 't2i web' writes them"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; split it into several files") from None
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _read_line(line, f"{path}, line {number}")
    if last.strip():
        where = f"{path}, line {len(lines) + 1}"
        try:
            yield _read_line(last, where)
        except UserError:
            if not last.startswith(b'{"kind"'[: len(last)]):
                raise
            note(f"warning: {where}: the last line is torn, and skipped")


def _read_line(line: bytes, where: str) -> Vote:
    """Read the vote of a line, or raise UserError."""
    try:
        document = parse_json(line, finite=True)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({str(error)[:80]}); {REMEDY}") from None
    return _parsed(document, where, REMEDY)


def _parsed(document: Any, where: str, remedy: str) -> Vote:
    """Check a vote's kind, keys and values."""
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind not in ("pair", "scale"):
        raise UserError(f'{where}: no vote, which has a \'kind\', "pair" or "scale"; {remedy}')
    entries = {key: value for key, value in document.items() if key != "kind"}
    vote: Vote = checked(_KINDS[kind], entries, where, remedy)
    if isinstance(vote, PairVote) and vote.left == vote.right:
        raise UserError(f"{where}: left and right are the same model; {remedy}")
    return vote
