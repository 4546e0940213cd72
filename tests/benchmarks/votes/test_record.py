"""The file of votes: what is appended is read again, also after kills and by several at once."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from t2i.benchmarks.votes.record import PairVote, ScaleVote, append_vote, read_votes
from t2i.core.errors import UserError

PAIR = PairVote(
    rater="anna", question="overall", caption="ein rötlicher Kreis\n", item="k1", left="a",
    right="b", choice="tie", order=0, time="2026-11-30T12:00:00+00:00", seconds=1.5,
)  # fmt: skip
SCALE = ScaleVote(
    rater="bob", question="real", caption="a circle", item="k2", model="a", value=4, order=3,
    time="2026-11-30T12:00:00Z", seconds=0,
)  # fmt: skip


def test_votes_come_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "new" / "votes.jsonl"
    for vote in (PAIR, SCALE):
        append_vote(file, vote)
    assert read_votes([file]) == [PAIR, SCALE]
    assert read_votes([file, file]) == [PAIR, SCALE] * 2
    first = json.loads(file.read_text(encoding="utf-8").splitlines()[0])
    assert first["kind"] == "pair"
    assert list(first) == [
        "kind", "rater", "question", "caption", "item", "left", "right", "choice", "order", "time",
        "seconds",
    ]  # fmt: skip


@pytest.mark.parametrize("cut", [1, 5, 40, -1])
def test_a_torn_last_line_is_skipped_and_then_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: int
) -> None:
    file = tmp_path / "votes.jsonl"
    append_vote(file, PAIR)
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:-1][:cut])
    assert read_votes([file]) == [PAIR]
    assert "votes.jsonl, line 2: the last line is torn" in capsys.readouterr().err
    append_vote(file, SCALE)
    assert read_votes([file]) == [PAIR, SCALE]
    assert capsys.readouterr().err == ""


def test_a_last_line_without_its_end_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    append_vote(file, PAIR)
    file.write_bytes(file.read_bytes()[:-1])
    assert read_votes([file]) == [PAIR]
    append_vote(file, SCALE)
    assert read_votes([file]) == [PAIR, SCALE]


def test_a_torn_line_longer_than_what_is_read_at_once_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    append_vote(file, PAIR)
    file.write_bytes(file.read_bytes() + b'{"kind": "' + b"x" * 200_000)
    append_vote(file, SCALE)
    assert read_votes([file]) == [PAIR, SCALE]


def test_nothing_is_appended_to_another_kind_of_file(tmp_path: Path) -> None:
    file = tmp_path / "thesis.tex"
    file.write_text("my whole thesis")
    with pytest.raises(UserError, match="holds no votes"):
        append_vote(file, PAIR)
    assert file.read_text() == "my whole thesis"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choice": "up"}, "'choice'"),
        ({"seconds": -1}, "'seconds'"),
        ({"order": "first"}, "'order'"),
        ({"rater": ""}, "'rater'"),
        ({"right": "a"}, "the same model"),
        ({"time": "yesterday"}, "'time'"),
        ({"time": "2026-11-30T12:00:00"}, "without its zone"),
        ({"address": "127.0.0.1"}, "'address': unknown entry"),
        ({"kind": "triple"}, "no vote"),
        ({"kind": ["pair"]}, "no vote"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = tmp_path / "votes.jsonl"
    append_vote(file, PAIR)
    line = {**json.loads(file.read_text(encoding="utf-8")), **change}
    with file.open("a") as out:
        out.write("\n" + json.dumps(line) + "\n")
    with pytest.raises(UserError, match=r"votes\.jsonl, line 3: .*" + message):
        read_votes([file])


@pytest.mark.parametrize("text", ["{", "[1]\n", "NaN\n", '{"kind": "pair"}\n', "\xff\n"])
def test_lines_that_are_no_votes_are_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "votes.jsonl"
    file.write_bytes(text.encode("latin-1") + b"\n")
    with pytest.raises(UserError, match="line 1"):
        read_votes([file])


def test_a_wrong_vote_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    with pytest.raises(UserError, match="'value'"):
        append_vote(file, replace(SCALE, value=5))
    assert not file.exists()


def test_a_missing_file_and_a_folder_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match="give a file of votes"):
            read_votes([path])


WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from t2i.benchmarks.votes.record import append_vote, read_votes
file = Path(sys.argv[1])
vote = replace(read_votes([file])[0], rater=sys.argv[2])
for order in range(40):
    append_vote(file, replace(vote, order=order))
"""


def test_processes_that_append_at_once_lose_no_vote(tmp_path: Path) -> None:
    file = tmp_path / "votes.jsonl"
    append_vote(file, PAIR)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file), str(n)]) for n in range(3)
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    votes = read_votes([file])[1:]
    for rater in range(3):
        assert [v.order for v in votes if v.rater == str(rater)] == [*range(40)]
