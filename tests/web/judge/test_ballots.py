"""The next ballot is balanced over models, captions and sides."""

import random
from collections import Counter

import pytest

from t2i.benchmarks.votes.record import PairVote
from t2i.core.errors import UserError
from t2i.web.judge.ballots import Ballot, Tally
from t2i.web.judge.study import Item, Study

MODELS = ("a", "b", "c", "d")
ITEMS = tuple(Item(f"key{n}", f"caption {n // 2}") for n in range(10))  # two noises of each caption
STUDY = Study("s", MODELS, ITEMS)


def judge(tally, raters, votes, rng):
    """Let some raters vote in turn; return their ballots."""
    given = []
    for n in range(votes):
        rater = raters[n % len(raters)]
        ballot = tally.next(rater, rng)
        tally.add(rater, ballot)
        given.append((rater, ballot))
    return given


@pytest.mark.parametrize("seed", range(5))
def test_pairs_captions_and_sides_are_balanced(seed):
    rng = random.Random(seed)
    given = judge(Tally(STUDY, []), ["r0", "r1", "r2"], 63, rng)
    pairs = Counter(frozenset(ballot.shown) for _, ballot in given)
    assert max(pairs.values()) - min(pairs.values()) <= 1
    assert len(pairs) == 6
    captions = Counter(ballot.item.caption for _, ballot in given)
    assert max(captions.values()) - min(captions.values()) <= 4
    cells = Counter((frozenset(ballot.shown), ballot.item.key) for _, ballot in given)
    assert max(cells.values()) - min(cells.get((p, i.key), 0) for p in pairs for i in ITEMS) <= 2
    for pair in pairs:
        lefts = Counter(b.shown[0] for _, b in given if frozenset(b.shown) == pair)
        assert abs(lefts[min(pair)] - lefts[max(pair)]) <= 3
    lefts = Counter(ballot.shown[0] for _, ballot in given)
    assert max(lefts.values()) - min(lefts.values()) <= 8


def test_a_rater_judges_everything_once_and_then_nothing():
    tally, rng = Tally(STUDY, []), random.Random(1)
    given = judge(tally, ["r"], STUDY.votes_each, rng)
    assert len({(frozenset(b.shown), b.item) for _, b in given}) == 60
    assert tally.next("r", rng) is None
    assert tally.next("other", rng) is not None
    assert (tally.done("r"), tally.done("other")) == (60, 0)


def test_sides_are_shuffled():
    firsts = {Tally(STUDY, []).next("r", random.Random(seed)).shown for seed in range(60)}
    assert {(b, a) for a, b in firsts} & firsts, "each pair always has the same sides"


def test_what_is_before_other_raters_counts():
    rng, tally = random.Random(0), Tally(Study("s", MODELS, ITEMS[:1]), [])
    seen = set()
    for rater in range(6):
        ballot = tally.next(f"r{rater}", rng)
        tally.show(f"r{rater}", ballot)
        seen.add(frozenset(ballot.shown))
    assert len(seen) == 6


def test_a_pair_is_finished_first_on_the_same_sides():
    study = Study("s", MODELS, ITEMS, ("overall", "real"))
    tally, rng = Tally(study, []), random.Random(3)
    first = tally.next("r", rng)
    tally.add("r", first)
    assert tally.next("r", rng) == Ballot(first.item, first.shown, "real")
    assert tally.next("other", rng).question == "overall"


def test_votes_of_the_file_count_and_others_do_not():
    def vote(**more):
        common = {"rater": "r", "question": "overall", "caption": "", "item": "key0", "left": "b",
                  "right": "a", "choice": "tie", "order": 0, "seconds": 1.0,
                  "time": "2026-11-30T12:00:00+00:00"}  # fmt: skip
        return PairVote(**{**common, **more})

    strange = [vote(item="other"), vote(left="zeta"), vote(question="beauty")]
    assert Tally(STUDY, strange).done("r") == 0
    tally = Tally(STUDY, [vote(), *strange])
    given = judge(tally, ["r"], 59, random.Random(0))
    assert tally.done("r") == 60
    assert ("a", "b", "key0") not in {(*sorted(b.shown), b.item.key) for _, b in given}


def test_scales_show_one_image():
    study = Study("s", ("a",), ITEMS, kind="scale")
    given = judge(Tally(study, []), ["r"], 10, random.Random(0))
    assert {ballot.shown for _, ballot in given} == {("a",)}
    assert len({ballot.item for _, ballot in given}) == 10


@pytest.mark.parametrize("wrong", [{"models": ("a",)}, {"models": ("a", "a")}, {"items": ()},
                                   {"items": (ITEMS[0], ITEMS[0])}, {"questions": ("beauty",)},
                                   {"questions": ()}])  # fmt: skip
def test_a_study_that_cannot_be_judged_is_refused(wrong):
    with pytest.raises(UserError, match="study 's'"):
        Study(**{"name": "s", "models": MODELS, "items": ITEMS, **wrong})
