"""Votes: one for each ballot, none lost, and nothing before a vote says whose an image is."""

import json
import random
import threading

import pytest

from t2i.benchmarks.votes.record import read_votes
from t2i.core.errors import UserError
from t2i.web.judge import page, poll
from t2i.web.judge.poll import Poll, UnknownTicket


class Clock:
    now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


@pytest.fixture
def begun(tmp_path, make):
    """`begun(**order)`: a poll on a new study, and the file of its votes."""

    def start(names=("alpha", "beta", "gamma"), **order):
        make(names, **order)
        return again(), tmp_path / "votes.jsonl"

    def again():
        return Poll(tmp_path / "studies", tmp_path / "votes.jsonl", Clock(), random.Random(0))

    start.again = again
    return start


def test_a_vote_is_written_and_the_next_ballot_shown(begun):
    asked, votes = begun()
    turn = asked.begin("study", "Ann")
    after = asked.vote(turn.ticket, "left")
    (vote,) = read_votes([votes])
    assert (vote.rater, vote.choice, vote.question, vote.order) == ("Ann", "left", "overall", 0)
    assert (vote.left, vote.right) == turn.ballot.shown
    assert (vote.item, vote.caption) == (turn.ballot.item.key, turn.ballot.item.caption)
    assert vote.seconds > 0
    assert (after.done, after.total) == (1, 9)
    assert after.ballot != turn.ballot
    assert f"left: {vote.left}, right: {vote.right}" in after.before


def test_a_double_click_is_one_vote(begun):
    asked, votes = begun()
    turn = asked.begin("study", "Ann")
    assert asked.vote(turn.ticket, "left") is not None
    assert asked.vote(turn.ticket, "left") is None
    assert asked.vote(turn.ticket, "right") is None
    assert len(read_votes([votes])) == 1


def test_a_click_right_after_the_last_is_no_vote(begun):
    asked, votes = begun()
    clock = asked._clock
    turn = asked.begin("study", "Ann")
    turn = asked.vote(turn.ticket, "left")
    clock.now -= 1  # the next look at the clock says that no time has gone by
    assert asked.vote(turn.ticket, "left") is None
    assert len(read_votes([votes])) == 1
    assert asked.vote(turn.ticket, "left") is not None


def test_everything_can_be_judged_and_it_ends(begun):
    asked, votes = begun(names=("alpha", "beta"), questions=("overall", "real"))
    turn = asked.begin("study", "Ann")
    while turn.ballot:
        turn = asked.vote(turn.ticket, "tie")
    found = read_votes([votes])
    assert len(found) == turn.done == turn.total == 3 * 2
    assert [vote.order for vote in found] == list(range(6))
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert (first.question, second.question) == ("overall", "real")
        assert (first.item, first.left) == (second.item, second.left)
    assert asked.begin("study", "Ann").ballot is None
    assert "judged everything" in page.ballot(turn, asked.study("study"))


def test_names_come_after_the_last_question_or_never(begun):
    asked, _ = begun(names=("alpha", "beta"), questions=("overall", "real"))
    turn = asked.begin("study", "Ann")
    turn = asked.vote(turn.ticket, "left")
    assert "alpha" not in turn.before
    assert "beta" not in turn.before
    turn = asked.vote(turn.ticket, "left")
    assert "alpha" in turn.before
    assert "beta" in turn.before


def test_names_may_never_be_shown(begun):
    asked, _ = begun(("alpha", "beta"), shown="never")
    turn = asked.begin("study", "Ann")
    turn = asked.vote(turn.ticket, "left")
    assert turn.before == "You chose: left."


def test_a_restarted_server_goes_on(begun):
    asked, votes = begun()
    turn, seen = asked.begin("study", "Ann"), []
    for _ in range(4):
        seen.append((frozenset(turn.ballot.shown), turn.ballot.item))
        turn = asked.vote(turn.ticket, "left")
    with open(votes, "ab") as file:
        file.write(b'{"kind": "pair", "rater": "An')  # a vote that a kill has cut short
    asked = begun.again()
    with pytest.raises(UnknownTicket):
        asked.vote(turn.ticket, "left")
    turn = asked.begin("study", "Ann")
    assert turn.done == 4
    while turn.ballot:
        seen.append((frozenset(turn.ballot.shown), turn.ballot.item))
        turn = asked.vote(turn.ticket, "bad")
    assert len(seen) == len(set(seen)) == 9
    assert [vote.order for vote in read_votes([votes])] == list(range(9))


def test_a_study_made_again_goes_on_and_one_of_other_images_begins_anew(begun, make, folder):
    asked, _ = begun(names=("alpha", "beta"))
    asked.vote(asked.begin("study", "Ann").ticket, "left")
    places = {name: asked.studies.parent / "pics" / name for name in ("alpha", "beta")}
    make((), folders=places)
    assert begun.again().begin("study-2", "Ann").done == 1
    make((), folders={"alpha": places["alpha"], "beta": folder("other", shade=77)})
    assert begun.again().begin("study-3", "Ann").done == 0


def test_several_raters_at_once(begun):
    asked, votes = begun()

    def work(rater):
        turn = asked.begin("study", rater)
        while turn.ballot:
            turn = asked.vote(turn.ticket, "right")

    threads = [threading.Thread(target=work, args=(f"r{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = read_votes([votes])
    assert len(found) == 4 * 9
    for rater in range(4):
        own = [vote for vote in found if vote.rater == f"r{rater}"]
        assert [vote.order for vote in own] == list(range(9))
        assert len({(vote.item, frozenset((vote.left, vote.right))) for vote in own}) == 9


def test_grades(begun):
    asked, votes = begun(names=("alpha",), kind="scale", questions=("faithful",))
    turn = asked.begin("study", "Ann")
    with pytest.raises(UserError, match="no vote"):
        asked.vote(turn.ticket, "left")
    turn = asked.vote(turn.ticket, 4)
    (vote,) = read_votes([votes])
    assert (vote.model, vote.value, vote.question) == ("alpha", 4, "faithful")


def test_a_wrong_choice_is_refused_and_costs_nothing(begun):
    asked, votes = begun()
    turn = asked.begin("study", "Ann")
    for choice in ("up", 3, True, ""):
        with pytest.raises(UserError, match="no vote"):
            asked.vote(turn.ticket, choice)
    assert not votes.exists()
    assert asked.vote(turn.ticket, "bad") is not None


def test_nothing_on_the_page_tells_whose_an_image_is(begun):
    asked, _ = begun(names=("alphamodel", "betamodel"))
    turn, sizes = asked.begin("study", "Ann"), set()
    while turn.ballot:
        html = page.ballot(turn, asked.study("study")).split('class="t2i-question"')[1]
        sizes.add(html.count('alt="left"') + html.count('alt="right"'))
        for secret in ("alpha", "beta", str(asked.studies), ".png", "<b>green"):
            assert secret not in html
        turn = asked.vote(turn.ticket, "left")
    assert sizes == {2}


def test_images_carry_pixels_alone(begun, tmp_path):
    begun(names=("alpha", "beta"))
    for path in (tmp_path / "studies/study/images").iterdir():
        data = path.read_bytes()
        assert not any(kind in data for kind in (b"tEXt", b"iTXt", b"zTXt", b"tIME", b"eXIf"))


def test_names_of_raters(begun):
    asked, _ = begun()
    assert asked.begin("study", " Ann\n\x07 ").rater == "Ann \\x07"
    assert len(asked.begin("study", "x" * 500).rater) == 40
    random_ones = {asked.begin("study", "").rater for _ in range(3)}
    assert len(random_ones) == 3


@pytest.mark.parametrize("name", ["../study", "/etc", "", None, "other"])
def test_only_studies_of_the_folder_are_read(begun, name):
    asked, _ = begun()
    with pytest.raises(UserError, match="no study"):
        asked.begin(name, "Ann")


def test_what_is_shown_is_bounded(begun, monkeypatch):
    monkeypatch.setattr(poll, "MOST_SHOWN", 3)
    asked, _ = begun()
    turns = [asked.begin("study", f"r{n}") for n in range(5)]
    with pytest.raises(UnknownTicket):
        asked.vote(turns[0].ticket, "left")
    assert asked.vote(turns[4].ticket, "left") is not None


def test_a_damaged_study_is_refused_by_name(begun):
    asked, _ = begun()
    file = asked.studies / "study/study.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "models": "alpha"}))
    with pytest.raises(UserError, match=r"study .*models.*make the study again"):
        asked.begin("study", "Ann")
