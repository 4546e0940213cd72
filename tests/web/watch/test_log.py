"""A growing log is read once, whatever happens to its file."""

import json

from t2i.web.watch import log
from t2i.web.watch.log import GrowingLog


def steps(found):
    return [entry["step"] for entry in found]


def test_only_what_is_new_is_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": n}) + "\n" for n in range(1000)))
    growing = GrowingLog(path)
    anew, found = growing.read()
    assert (anew, steps(found)) == (False, list(range(1000)))
    size = path.stat().st_size
    assert growing.bytes_read == size
    assert growing.read() == (False, [])
    assert growing.bytes_read == size
    with open(path, "a") as file:
        file.write('{"step": 1000}\n')
    assert steps(growing.read()[1]) == [1000]
    assert growing.bytes_read == size + 15


def test_a_half_written_line_is_read_when_the_rest_is_there(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st')
    growing = GrowingLog(path)
    assert steps(growing.read()[1]) == [1]
    with open(path, "a") as file:
        file.write('ep": 2}\n')
    assert steps(growing.read()[1]) == [2]


def test_a_long_log_is_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "MOST", 50)
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": n}) + "\n" for n in range(20)))
    growing, found, calls = GrowingLog(path), [], 0
    while part := growing.read()[1]:
        found += part
        calls += 1
    assert steps(found) == list(range(20))
    assert calls > 3


def test_what_is_no_line_of_a_log_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "LONGEST", 100)
    monkeypatch.setattr(log, "MOST", 64)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'[1]\nnonsense\n{"step": 1}\n' + b"x" * 1000 + b'\n{"step": 2}\n\xff\xfe\n')
    growing, found = GrowingLog(path), []
    for _ in range(30):
        found += growing.read()[1]
    assert steps(found) == [1, 2]


def test_a_replaced_log_begins_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    growing = GrowingLog(path)
    growing.read()
    other = tmp_path / "other"  # as a resumed run replaces its log
    other.write_text('{"step": 1}\n{"step": 5}\n{"step": 6}\n')
    other.replace(path)
    anew, found = growing.read()
    assert (anew, steps(found)) == (True, [1, 5, 6])


def test_a_run_may_begin_late_and_vanish(tmp_path):
    path = tmp_path / "metrics.jsonl"
    growing = GrowingLog(path)
    assert growing.read() == (False, [])
    path.write_text('{"step": 1}\n')
    assert steps(growing.read()[1]) == [1]
    path.unlink()
    assert growing.read() == (True, [])
    assert growing.read() == (False, [])
