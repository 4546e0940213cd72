"""Raters and their votes: several at once, each shown ballot good for one vote.

A ballot is shown under a random ticket. Only the server knows which models a ticket stands for, and
a ticket is used up by the first vote with it, so that a double click is one vote.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from t2i.benchmarks.votes.record import PairVote, ScaleVote, Vote, append_vote, read_votes
from t2i.core.errors import UserError
from t2i.core.io.terminal import printable
from t2i.web.judge.ballots import Ballot, Tally
from t2i.web.judge.study import Study, image_path, list_studies, read_study

MOST_SHOWN = 1000
"""Most ballots that wait for a vote. The oldest is forgotten; its page gets another one."""

LEAST_SECONDS = 0.4
"""Nobody judges faster. A click that comes earlier was meant for the ballot before."""

LONGEST_NAME = 40
CHOICES = ("left", "right", "tie", "bad")


@dataclass(frozen=True)
class Turn:
    """What a rater sees.

    Args:
        study: Name of the study.
        rater: Name of the rater.
        ticket: Random word under which the ballot is known. "": everything is judged.
        ballot: The ballot. None: everything is judged.
        images: Files of the images, from left to right.
        done: Votes of this rater on the study.
        total: Votes that one rater can give.
        before: The last vote in words, with the models' names if the study shows them. "": none.
    """

    study: str
    rater: str
    ticket: str
    ballot: Ballot | None
    images: tuple[Path, ...]
    done: int
    total: int
    before: str = ""


@dataclass(frozen=True)
class _Shown:
    study: str
    rater: str
    ballot: Ballot
    since: float


class UnknownTicket(UserError):
    """The ticket is of a page that was loaded before the server was started again."""


class Poll:
    """The studies in a folder, and the votes on them. Several threads may use it at once.

    Args:
        studies: Folder of the studies.
        votes: File of the votes.
        clock: Returns the time in seconds.
        rng: Source of chance.
    """

    def __init__(
        self,
        studies: Path,
        votes: Path,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.studies, self.votes = studies, votes
        self._clock, self._rng = clock, rng or random.SystemRandom()
        self._lock = threading.RLock()
        self._tallies: dict[str, Tally] = {}
        self._orders: dict[str, int] = {}
        self._shown: OrderedDict[str, _Shown] = OrderedDict()
        self._used: OrderedDict[str, None] = OrderedDict()

    def begin(self, study: str | None, rater: str) -> Turn:
        """Show a rater the first ballot, or the next one after a restart or a reload.

        Args:
            study: Name of the study.
            rater: Name of the rater. "": a random one is chosen.

        Returns:
            What the rater sees.

        Raises:
            UserError: There is no such study, or the file of votes cannot be read.
        """
        rater = _name(rater)
        with self._lock:
            if study not in list_studies(self.studies):
                raise UserError(f"no study '{study}': choose one of the list, or make one")
            self._forget(str(study), rater)
            self._read(str(study))
            return self._next(str(study), rater)

    def vote(self, ticket: str, choice: str | int) -> Turn | None:
        """Take a vote, and show the next ballot.

        Args:
            ticket: The ticket of the ballot.
            choice: One of CHOICES, or 0 to 4 for a study with scales.

        Returns:
            What the rater sees now. None: the ticket is used up, or the vote came too early, and
            nothing was written.

        Raises:
            UnknownTicket: The server has not given this ticket, or has forgotten it.
            UserError: The choice is none of the study's kind, or the vote cannot be written.
        """
        with self._lock:
            shown = self._shown.get(ticket)
            now = self._clock()
            if shown is None and ticket not in self._used:
                raise UnknownTicket("this page is older than the server: here is the next ballot")
            if shown is None or now - shown.since < LEAST_SECONDS:
                return None
            tally = self._tallies[shown.study]
            vote = self._vote(shown, choice, now - shown.since)
            append_vote(self.votes, vote)  # before anything else: then the vote is safe
            self._orders[shown.rater] = vote.order + 1
            self._drop(ticket)
            self._used[ticket] = None
            while len(self._used) > MOST_SHOWN:
                self._used.popitem(last=False)
            tally.add(shown.rater, shown.ballot)
            return self._next(shown.study, shown.rater, _said(tally.study, shown, choice))

    def _vote(self, shown: _Shown, choice: str | int, seconds: float) -> Vote:
        ballot, study = shown.ballot, self._tallies[shown.study].study
        common = {
            "rater": shown.rater, "question": ballot.question, "caption": ballot.item.caption,
            "item": ballot.item.key,
        }  # fmt: skip
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        order, seconds = self._orders.get(shown.rater, 0), round(seconds, 3)
        if study.kind == "scale" and isinstance(choice, int) and 0 <= choice <= 4:
            (model,) = ballot.shown
            return ScaleVote(
                **common, model=model, value=choice, order=order, time=when, seconds=seconds
            )
        if study.kind == "pair" and choice in CHOICES:
            left, right = ballot.shown
            return PairVote(
                **common, left=left, right=right, choice=cast(Any, choice),
                order=order, time=when, seconds=seconds,
            )  # fmt: skip
        raise UserError(f"'{choice}' is no vote of this study")

    def _read(self, study: str) -> None:
        """Read a study and all votes, also those that other processes have added."""
        votes = read_votes([self.votes]) if self.votes.exists() else []
        orders: dict[str, int] = {}
        for vote in votes:
            orders[vote.rater] = max(orders.get(vote.rater, 0), vote.order + 1)
        self._orders = orders
        tally = Tally(read_study(self.studies / study), votes)
        for shown in self._shown.values():
            if shown.study == study:
                tally.show(shown.rater, shown.ballot)
        self._tallies[study] = tally

    def _next(self, study: str, rater: str, before: str = "") -> Turn:
        """Choose a ballot, and remember it under a new ticket."""
        tally = self._tallies[study]
        ballot = tally.next(rater, self._rng)
        done, total = tally.done(rater), tally.study.votes_each
        if ballot is None:
            return Turn(study, rater, "", None, (), done, total, before)
        ticket = secrets.token_urlsafe(12)
        self._shown[ticket] = _Shown(study, rater, ballot, self._clock())
        tally.show(rater, ballot)
        while len(self._shown) > MOST_SHOWN:
            self._drop(next(iter(self._shown)))
        folder = self.studies / study
        images = tuple(
            image_path(folder, tally.study, ballot.item.key, model) for model in ballot.shown
        )
        return Turn(study, rater, ticket, ballot, images, done, total, before)

    def study(self, name: str) -> Study:
        """Return a study that some rater has begun.

        Args:
            name: Its name.

        Returns:
            The study.
        """
        return self._tallies[name].study

    def _drop(self, ticket: str) -> None:
        shown = self._shown.pop(ticket)
        self._tallies[shown.study].show(shown.rater, shown.ballot, -1)

    def _forget(self, study: str, rater: str) -> None:
        """Forget what a rater was shown before a reload."""
        for ticket, shown in list(self._shown.items()):
            if (shown.study, shown.rater) == (study, rater):
                self._drop(ticket)


def _said(study: Study, shown: _Shown, choice: str | int) -> str:
    """Say what the vote was, and whose images they were once all questions are answered."""
    ballot = shown.ballot
    words = {"left": "left", "right": "right", "tie": "as good", "bad": "both bad"}
    told = f"You chose: {words.get(str(choice), choice)}."
    if study.shown == "never" or ballot.question != study.questions[-1]:
        return told
    sides = ("left", "right") if len(ballot.shown) == 2 else ("image",)
    named = ", ".join(f"{side}: {name}" for side, name in zip(sides, ballot.shown, strict=True))
    return f"{told} {named}."


def _name(text: str) -> str:
    """Return a rater's name as it is stored, or a random one."""
    name = printable(text or "").strip()[:LONGEST_NAME].strip()
    return name or f"rater-{secrets.token_hex(3)}"
