"""The published questions of TIFA and DSG, by caption.

Source: Hu et al. 2023 (TIFA), Cho et al. 2024 (DSG).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from t2i.core.errors import UserError
from t2i.core.io.files import read_file
from t2i.core.io.tables import Row, read_table
from t2i.plugins.common.text.readable import plain

YES_NO = ("yes", "no")


@dataclass(frozen=True)
class Question:
    """A question about an image of a caption.

    Args:
        number: Its number among the questions of its caption, from 1.
        text: The question.
        choices: The answers to choose from.
        answer: The right answer.
        parents: Numbers of the questions without whose right answers this one has no meaning.
    """

    number: int
    text: str
    choices: tuple[str, ...]
    answer: str
    parents: tuple[int, ...] = ()


Questions = Mapping[str, Sequence[Question]]
"""Questions by caption, with single spaces between its words."""


def read_tifa(path: Path) -> Questions:
    """Read TIFA's questions.

    Args:
        path: A JSON list of objects with caption, question, choices and answer.

    Returns:
        The questions by caption.

    Raises:
        UserError: The file cannot be read, or has another layout.
    """
    found: dict[str, list[Question]] = {}
    for row in _rows(path, ("caption", "question", "choices", "answer")):
        values, choices = row.values, row.values["choices"]
        if not isinstance(choices, list) or values["answer"] not in choices:
            raise UserError(f"{path}, {row.place}: the answer is none of the choices")
        known = found.setdefault(plain(str(values["caption"])), [])
        question = str(values["question"])
        number = len(known) + 1
        known.append(Question(number, question, tuple(map(str, choices)), str(values["answer"])))
    return found


def read_dsg(path: Path) -> Questions:
    """Read DSG's questions. The answer to each of them is yes.

    Args:
        path: A table with text, proposition_id, dependency and question_natural_language.

    Returns:
        The questions by caption. Of a caption that several items share, those of the first item.
        Where a dependency is no list of numbers (9 published captions), no question of the caption
        has parents, as in the authors' code.

    Raises:
        UserError: The file cannot be read, or has another layout.
    """
    found: dict[str, list[Question]] = {}
    items: dict[str, Any] = {}
    loose: set[str] = set()
    columns = ("item_id", "text", "proposition_id", "dependency", "question_natural_language")
    for row in _rows(path, columns):
        item, caption, number, above, text = (str(row.values[column]) for column in columns)
        key = plain(caption)
        if items.setdefault(key, item) != item:
            continue
        if not number.isdecimal():
            raise UserError(f"{path}, {row.place}: proposition_id is no number; get it again")
        named = [one.strip() for one in above.split(",")]
        if not all(one.isdecimal() for one in named):
            loose.add(key)
        parents = tuple(int(one) for one in named if one.isdecimal() and int(one))
        found.setdefault(key, []).append(Question(int(number), text, YES_NO, "yes", parents))
    for key in loose:
        found[key] = [replace(one, parents=()) for one in found[key]]
    return found


def _rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Read a table that has some columns in every row."""
    try:
        table = read_table(path.name, read_file(path, "questions"), str(path))
    except OSError as error:
        raise UserError(f"questions {path}: {error.strerror or error}") from None
    for row in table.rows:
        if lacking := [column for column in columns if row.values.get(column) is None]:
            raise UserError(f"{path}, {row.place}: no {lacking[0]}; is it the right file?")
    return list(table.rows)


def share_right(questions: Sequence[Question], answers: Mapping[int, str]) -> float:
    """Compute the share of right answers.

    A right answer counts only if all parents of its question are answered right.

    Args:
        questions: The questions of a caption, at least one.
        answers: The answer to each, by its number.

    Returns:
        The share, from 0 to 1.
    """
    right = {one.number: answers[one.number] == one.answer for one in questions}
    counted = [
        right[one.number] and all(right.get(parent, True) for parent in one.parents)
        for one in questions
    ]
    return sum(counted) / len(counted)
