"""The log of a run that somebody sent: a curve, or one line."""

import json

import pytest

from t2i.benchmarks.run import training_log
from t2i.benchmarks.run.training_log import LONGEST, read_curve
from t2i.core.errors import UserError


def line(**more):
    whole = {"stage": "s", "step": 1, "losses": {"a": 1.0}, "seconds": 2.0, "lr": {"a": 1}, **more}
    return json.dumps(whole) + "\n"


def test_a_log_is_thinned_to_what_a_curve_needs(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(line(step=n) for n in range(1000)))
    found = read_curve(path, points=10)
    assert [entry["step"] for entry in found] == list(range(0, 1000, 100))
    assert set(found[0]) == {"stage", "step", "seconds", "losses"}
    assert read_curve(tmp_path / "none") == []


def test_a_last_line_that_was_cut_short_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for end in (b'{"step": 9', b"\0" * 40, b"[" * 9000):
        path.write_bytes(line().encode() + end)
        assert len(read_curve(path)) == 1


def test_numbers_that_no_loss_can_be_are_gaps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    huge = '{"losses": {"a": NaN, "b": 1e308, "c": 1' + "0" * 400 + ', "d": -Infinity, "e": 2}}\n'
    path.write_text(huge + line())
    assert read_curve(path)[0]["losses"] == {"a": None, "b": None, "c": None, "d": None, "e": 2}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[1]\n", "no JSON object"),
        (b"null\n", "no JSON object"),
        (b"[" * 20_000, "no JSON"),
        (b'{"stage": "caf\xe9"}\n', "no JSON"),
        (b"\xff\xfe{\0}\0\n", "no JSON"),
        (b'{"losses": [1]}\n', "'losses' are no numbers"),
        (b'{"losses": {"a": "x"}}\n', "a loss is no number"),
        (b'{"seconds": -1}\n', "'seconds' is wrong"),
        (b'{"seconds": NaN}\n', "'seconds' is wrong"),
        (b'{"seconds": "1"}\n', "'seconds' is wrong"),
        (b'{"step": 1e300}\n', "'step' is wrong"),
        (b'{"stage": 1}\n', "'stage' is wrong"),
        (b" " * (LONGEST + 1), "too long"),
    ],
)
def test_what_is_no_log_is_one_line(tmp_path, text, told):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(text + b"\n" + line().encode())
    with pytest.raises(UserError, match=told) as error:
        read_curve(path)
    assert str(error.value).startswith(f"{path}, line 1: ")
    assert "restore the file, or remove it" in str(error.value)


def test_a_log_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "metrics.jsonl"
    with open(path, "wb") as file:
        file.truncate(2**40)  # a sparse file
    with pytest.raises(UserError, match="larger than 256 MiB"):
        read_curve(path)
    monkeypatch.setattr(training_log, "MOST_LINES", 5)
    path.write_bytes(b"\n" * 9)
    with pytest.raises(UserError, match="over 5 lines"):
        read_curve(path)


def test_a_folder_in_its_place_is_told(tmp_path):
    with pytest.raises(UserError, match="no regular file"):
        read_curve(tmp_path)


SCORE = {"value": 3.0, "interval": [2.0, 4.0], "count": 64, "better": "high", "title": "x of 64"}


def test_every_line_of_scores_stays(tmp_path):
    path = tmp_path / "metrics.jsonl"
    scores = json.dumps({"stage": "s", "step": 7, "seconds": 2.0, "scores": {"x": SCORE}}) + "\n"
    path.write_text("".join(line(step=n) for n in range(997)) + scores + line() * 2)
    (found,) = [entry for entry in read_curve(path, points=10) if "scores" in entry]
    assert found["step"] == 7
    assert found["losses"] == {}
    assert found["scores"]["x"]["interval"] == [2.0, 4.0]
    path.write_text('{"scores": {"x": {"value": "much"}}}\n')
    with pytest.raises(UserError, match="'scores' are no scores by name"):
        read_curve(path)
