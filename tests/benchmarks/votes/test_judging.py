"""From files of votes to tables: ranks, ties, repeated votes, what is not settled."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

import t2i
from t2i.benchmarks.votes.grades import judge_grades
from t2i.benchmarks.votes.judgement import ALL
from t2i.benchmarks.votes.judging import judge
from t2i.benchmarks.votes.pairs import judge_pairs
from t2i.benchmarks.votes.record import PairVote, ScaleVote, append_vote
from t2i.benchmarks.votes.table import show
from t2i.core.errors import UserError

TIME = "2026-11-30T12:00:00Z"
FAR = {"good": 2.0, "fair": 0.0, "poor": -2.0}


def pair(rater: str, item: str, left: str, right: str, choice: str) -> PairVote:
    return PairVote(rater, "overall", "a circle", item, left, right, choice, 0, TIME, 1.0)  # type: ignore[arg-type]


def written(path, votes):
    for vote in votes:
        kind = "pair" if isinstance(vote, PairVote) else "scale"
        with path.open("a") as file:
            file.write(json.dumps({"kind": kind, **vars(vote)}) + "\n")
    return path


def test_models_far_apart_have_ranks_and_models_alike_have_none(pair_votes) -> None:
    far = judge_pairs("overall", pair_votes(FAR, raters=12, each=30))
    assert [(p.model, p.first, p.last) for p in far.places] == [
        ("good", 1, 1), ("fair", 2, 2), ("poor", 3, 3),
    ]  # fmt: skip
    assert far.needed == []
    alike = judge_pairs("overall", pair_votes({"a": 0.0, "b": 0.0, "c": 0.1}, 12, 30))
    assert {(p.first, p.last) for p in alike.places} == {(1, 3)}
    assert len(alike.needed) == 2


def test_places_are_sorted_and_lie_within_their_intervals(pair_votes) -> None:
    table = judge_pairs("overall", pair_votes({"a": 0.3, "b": 0.0, "c": -0.3}, 6, 20))
    values = [place.value for place in table.places]
    assert values == sorted(values, reverse=True)
    for place in table.places:
        assert 0 <= place.low < place.value < place.high <= 100
    assert sum(place.votes for place in table.places) == 2 * table.votes


def test_a_few_votes_that_all_say_the_same_settle_nothing() -> None:
    few = [pair(f"r{n}", "k", "a", "b", "left") for n in range(3)]
    assert not judge_pairs("overall", few).places[0].settled
    many = [pair(f"r{n}", "k", "a", "b", "left") for n in range(20)]
    assert judge_pairs("overall", many).places[0].settled


def test_one_rater_has_no_interval_and_settles_nothing(pair_votes) -> None:
    table = judge_pairs("overall", pair_votes(FAR, raters=1, each=200))
    assert all(place.low is None and not place.settled for place in table.places)
    assert any("There is one rater" in note for note in table.notes)
    assert {needed.votes for needed in table.needed} == {None}


def test_ties_and_both_bad_count_half_and_are_told_apart() -> None:
    votes = [pair(f"r{n % 4}", f"k{n}", "a", "b", c) for n, c in enumerate(["tie", "bad"] * 10)]
    table = judge_pairs("overall", votes)
    assert [round(place.value, 6) for place in table.places] == [50, 50]
    assert table.choices == {"left": 0, "right": 0, "tie": 10, "bad": 10}
    assert [place.bad for place in table.places] == [0.5, 0.5]


def test_the_side_of_an_image_does_not_change_its_strength(pair_votes) -> None:
    votes = pair_votes(FAR, 6, 20)
    other = {"left": "right", "right": "left"}
    turned = [
        replace(v, left=v.right, right=v.left, choice=other.get(v.choice, v.choice)) for v in votes
    ]
    assert judge_pairs("q", votes).places == judge_pairs("q", turned).places
    assert judge_pairs("q", votes).sides.left + judge_pairs("q", turned).sides.left == 1


def test_raters_who_always_choose_left_are_found_out(pair_votes) -> None:
    fair = judge_pairs("q", pair_votes(FAR, 10, 30)).sides
    assert not fair.biased
    lazy = [pair(f"r{n % 5}", f"k{n}", "a", "b", "left" if n % 7 else "right") for n in range(70)]
    found = judge_pairs("q", lazy).sides
    assert found.biased
    assert found.left == pytest.approx(60 / 70)


def test_a_raters_last_vote_on_the_same_images_counts() -> None:
    votes = [pair(f"r{n}", "k", "a", "b", "left") for n in range(5)]
    again = [pair(f"r{n}", "k", "b", "a", "left") for n in range(5)]
    table = judge_pairs("q", votes + again)
    assert (table.votes, table.places[0].model) == (5, "b")
    assert any("5 votes" in note for note in table.notes)


def test_groups_that_never_met_are_not_ranked_against_each_other() -> None:
    votes = [pair(f"r{n % 8}", f"k{n}", "a", "b", "left") for n in range(80)]
    votes += [pair(f"r{n % 8}", f"k{n}", "c", "d", "right") for n in range(80)]
    table = judge_pairs("q", votes)
    assert {p.model: (p.first, p.last) for p in table.places} == {
        "a": (1, 3), "d": (1, 3), "b": (2, 4), "c": (2, 4),
    }  # fmt: skip
    assert any("a, b; c, d" in note for note in table.notes)


def test_as_many_raters_as_are_needed_settle_a_difference(pair_votes) -> None:
    """More raters who vote as the first ones did, in the number that is called needed."""
    first = [
        pair(f"r{n % 6}", f"k{n}", "a", "b", "left" if (n * 7) % 10 < 6 else "right")
        for n in range(60)
    ]
    table = judge_pairs("q", first)
    [needed] = table.needed
    assert needed.votes == 10 * needed.raters
    copies = 1 + -(-needed.raters // 6)
    more = [replace(vote, rater=f"{vote.rater}-{c}") for c in range(copies) for vote in first]
    assert judge_pairs("q", more).places[0].settled


def scale(rater: int, item: int, model: str, value: int) -> ScaleVote:
    return ScaleVote(f"r{rater}", "real", "a circle", f"k{item}", model, value, 0, TIME, 1.0)


def test_grades_are_means_with_ranks() -> None:
    votes = [
        scale(r, i, model, min(4, max(0, base + (r + i) % 3 - 1)))
        for r in range(6) for i in range(6) for model, base in (("a", 3), ("b", 1))
    ]  # fmt: skip
    table = judge_grades("real", votes)
    assert [(p.model, round(p.value, 2), p.first, p.last) for p in table.places] == [
        ("a", 3.0, 1, 1), ("b", 1.0, 2, 2),
    ]  # fmt: skip
    assert table.agreement.scale == "ordinal"
    only = judge_grades("real", [*votes, scale(0, 0, "c", 4)])
    assert next(p for p in only.places if p.model == "c").low is None


def test_equal_grades_have_an_interval() -> None:
    table = judge_grades("real", [scale(r, 0, "a", 4) for r in range(6)])
    assert table.places[0].low < 4 == table.places[0].high


def test_a_table_for_each_question_and_one_for_all(tmp_path, pair_votes) -> None:
    votes = pair_votes(FAR, 3, 5) + pair_votes(FAR, 3, 5, question="faithful")
    file = written(tmp_path / "votes.jsonl", [*votes, scale(0, 0, "good", 4)])
    found = judge([file])
    assert [(t.question, t.kind, t.votes) for t in found.tables] == [
        ("overall", "pair", 15), ("faithful", "pair", 15), (ALL, "pair", 30), ("real", "scale", 1),
    ]  # fmt: skip
    assert [t.question for t in t2i.votes(file, question="faithful").tables] == ["faithful"]
    json.dumps(found.document(), allow_nan=False)


def test_an_unknown_question_and_empty_files_are_errors(tmp_path, pair_votes) -> None:
    file = written(tmp_path / "votes.jsonl", pair_votes(FAR, 2, 2))
    with pytest.raises(UserError, match="did you mean 'overall'"):
        judge([file], "overal")
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    with pytest.raises(UserError, match="no vote is there yet"):
        judge([empty])


def test_tables_fit_80_columns_and_names_are_no_markup(tmp_path, pair_votes) -> None:
    names = {"[red]a-model-with-quite-a-long-name": 0.1, "b\x1b[2J": 0.0, "pixelart": -0.1}
    file = tmp_path / "votes.jsonl"
    for vote in pair_votes(names, 6, 6):
        append_vote(file, vote)
    out = io.StringIO()
    show(judge([file]), Console(file=out, width=80))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "[red]a-model-with" in text
    assert "\x1b" not in text
    assert "1-3 (not settled)" in text
    for word in ("alpha", "the left image won", "Prior", "To settle", "6 raters"):
        assert word in text
