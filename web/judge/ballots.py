"""Which images a rater judges next, so that models, captions and sides are balanced."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from t2i.benchmarks.votes.record import PairVote, Vote
from t2i.web.judge.study import Item, Study

Subject = tuple[str, ...]
"""What is judged at a time, in the order of the study: two models, or one."""


@dataclass(frozen=True)
class Ballot:
    """One question about one or two images.

    Args:
        item: Caption and noise of the images.
        shown: The models whose images are shown, from left to right.
        question: Name of the question.
    """

    item: Item
    shown: tuple[str, ...]
    question: str


class Tally:
    """Counts of the votes on a study, from which the next ballot is chosen.

    Args:
        study: The study.
        votes: The votes so far, also those on other studies, which do not count.
    """

    def __init__(self, study: Study, votes: Iterable[Vote]) -> None:
        self.study = study
        self._items = {item.key: item for item in study.items}
        self._subjects = {frozenset(subject): subject for subject in study.subjects}
        self._judged: dict[tuple[str, str, Subject], set[str]] = {}
        self._shown: dict[tuple[str, str, Subject], tuple[str, ...]] = {}
        self._of_subject: Counter[Subject] = Counter()
        self._of_cell: Counter[tuple[Subject, str]] = Counter()
        self._of_caption: Counter[str] = Counter()
        self._of_item: Counter[str] = Counter()
        self._lefts: Counter[tuple[str, str]] = Counter()
        self._own_lefts: Counter[tuple[str, str, str]] = Counter()
        for vote in votes:
            shown = (vote.left, vote.right) if isinstance(vote, PairVote) else (vote.model,)
            subject = self._subjects.get(frozenset(shown))
            if subject and vote.item in self._items and vote.question in study.questions:
                self.add(vote.rater, Ballot(self._items[vote.item], shown, vote.question))

    def subject(self, ballot: Ballot) -> Subject:
        """Return what a ballot judges, without regard to the sides.

        Args:
            ballot: The ballot.

        Returns:
            Its models in the study's order.
        """
        return self._subjects[frozenset(ballot.shown)]

    def add(self, rater: str, ballot: Ballot) -> None:
        """Count a vote.

        Args:
            rater: Name of the rater.
            ballot: What the vote is on.
        """
        subject, item = self.subject(ballot), ballot.item
        key = (rater, item.key, subject)
        first = key not in self._judged
        self._judged.setdefault(key, set()).add(ballot.question)
        self._shown.setdefault(key, ballot.shown)
        if first:  # further questions about the same images balance nothing
            self._count(rater, ballot, 1)

    def show(self, rater: str, ballot: Ballot, sign: int = 1) -> None:
        """Count a ballot that is before a rater's eyes, as if it were judged already.

        Args:
            rater: Name of the rater.
            ballot: The ballot.
            sign: 1, or -1 when it is no longer shown.
        """
        if (rater, ballot.item.key, self.subject(ballot)) not in self._judged:
            self._count(rater, ballot, sign)

    def _count(self, rater: str, ballot: Ballot, sign: int) -> None:
        subject, item = self.subject(ballot), ballot.item
        self._of_subject[subject] += sign
        self._of_cell[subject, item.key] += sign
        self._of_caption[item.caption] += sign
        self._of_item[item.key] += sign
        if len(ballot.shown) == 2:
            left, right = ballot.shown
            self._lefts[left, right] += sign
            self._own_lefts[rater, left, right] += sign

    def done(self, rater: str) -> int:
        """Count the votes of a rater on the study.

        Args:
            rater: Name of the rater.

        Returns:
            The number.
        """
        return sum(len(questions) for (who, *_), questions in self._judged.items() if who == rater)

    def next(self, rater: str, rng: random.Random) -> Ballot | None:
        """Choose what a rater judges next.

        Images about which the rater has answered some of the questions come first, on the same
        sides. Otherwise it is the pair of models that was judged least; of its items the one
        that was judged least for this pair, then the least judged caption and item; chance decides
        among equals.

        Args:
            rater: Name of the rater.
            rng: Source of chance.

        Returns:
            The ballot. None: the rater has judged everything.
        """
        for (who, key, subject), answered in self._judged.items():
            if who == rater and len(answered) < len(self.study.questions):
                open_ = next(q for q in self.study.questions if q not in answered)
                return Ballot(self._items[key], self._shown[who, key, subject], open_)
        left = [
            (subject, item)
            for subject in self._subjects.values()
            for item in self.study.items
            if (rater, item.key, subject) not in self._judged
        ]
        if not left:
            return None
        subject, item = min(left, key=lambda cell: (*self._counts(*cell), rng.random()))
        return Ballot(item, self._sides(rater, subject, rng), self.study.questions[0])

    def _counts(self, subject: Subject, item: Item) -> tuple[int, ...]:
        return (
            self._of_subject[subject], self._of_cell[subject, item.key],
            self._of_caption[item.caption], self._of_item[item.key],
        )  # fmt: skip

    def _sides(self, rater: str, subject: Subject, rng: random.Random) -> tuple[str, ...]:
        """Choose the sides: those that the rater, then all raters, have seen less; else by chance.

        A rater cannot foresee them: no model's name is known before the vote.
        """
        if len(subject) == 1:
            return subject
        a, b = subject
        own = self._own_lefts[rater, a, b] - self._own_lefts[rater, b, a]
        lead = own or self._lefts[a, b] - self._lefts[b, a]
        if lead:
            return (b, a) if lead > 0 else (a, b)
        return (a, b) if rng.random() < 0.5 else (b, a)
