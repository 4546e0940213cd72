"""`t2i votes` as a real process."""

import json
import subprocess
import sys

VOTE = {
    "kind": "pair", "rater": "anna", "question": "overall", "caption": "a circle", "item": "k",
    "left": "ldm", "right": "dfgan", "choice": "left", "order": 0,
    "time": "2026-11-30T12:00:00Z", "seconds": 1.0,
}  # fmt: skip


def t2i(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "t2i.cli", *map(str, arguments)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_document_of_the_votes_in_a_file(tmp_path):
    file = tmp_path / "votes.jsonl"
    votes = [{**VOTE, "rater": rater, "item": str(n)} for rater in "abcdef" for n in range(5)]
    file.write_text("".join(json.dumps(vote) + "\n" for vote in votes))
    told = t2i("votes", file, "--json")
    assert (told.returncode, told.stderr) == (0, "")
    found = json.loads(told.stdout)
    assert (found["tables"][0]["votes"], found["tables"][0]["raters"]) == (30, 6)
    first, second = found["tables"][0]["places"]
    assert (first["model"], first["first"], first["last"], first["settled"]) == ("ldm", 1, 1, True)
    assert second["value"] < 10


def test_a_wrong_line_ends_the_command_in_one_line(tmp_path):
    file = tmp_path / "votes.jsonl"
    file.write_text(json.dumps({**VOTE, "choice": "up"}) + "\n")
    told = t2i("votes", file)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith(f"error: {file}, line 1: 'choice'")
    assert told.stderr.count("\n") == 1
