"""Judge models by the votes in files, question by question."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from t2i.benchmarks.votes.grades import judge_grades
from t2i.benchmarks.votes.judgement import ALL, Judgements
from t2i.benchmarks.votes.pairs import judge_pairs
from t2i.benchmarks.votes.record import PairVote, ScaleVote, Vote, read_votes
from t2i.core.errors import UserError, nearest

V = TypeVar("V", bound=Vote)


def judge(files: Sequence[Path], question: str | None = None) -> Judgements:
    """Judge models by the votes in files.

    Args:
        files: Files as `append_vote` writes them.
        question: The only question to take. None: each, and all together.

    Returns:
        The tables.

    Raises:
        UserError: A file is wrong, holds no vote, or none on the question.
    """
    votes = read_votes(files)
    if not votes:
        raise UserError(f"{', '.join(map(str, files)) or 'no file'}: no vote is there yet")
    questions = list(dict.fromkeys(vote.question for vote in votes))
    if question is not None and question not in questions:
        raise UserError(f"no vote on the question '{question}'{nearest(question, questions)}")
    hashes = {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    wanted = questions if question is None else [question]
    pairs = [v for v in votes if isinstance(v, PairVote) and v.question in wanted]
    grades = [v for v in votes if isinstance(v, ScaleVote) and v.question in wanted]
    tables = [judge_pairs(name, group) for name, group in _by_question(pairs).items()]
    tables += [judge_grades(name, group) for name, group in _by_question(grades).items()]
    return Judgements(tables, hashes)


def _by_question(votes: Sequence[V]) -> dict[str, list[V]]:
    """Group votes by question; those on several questions are a group of their own as well."""
    groups: dict[str, list[V]] = {}
    for vote in votes:
        groups.setdefault(vote.question, []).append(vote)
    return {**groups, ALL: list(votes)} if len(groups) > 1 else groups
