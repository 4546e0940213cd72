"""The file of records, which people and the tool read."""

import pytest

from t2i.benchmarks.report.table import DASH
from t2i.benchmarks.speedrun.records import COLUMNS, HEAD
from t2i.core.errors import UserError


def rows(path):
    lines = path.read_text().splitlines()
    cells = [
        [cell.strip() for cell in line.replace("\\|", "&bar;").strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]
    assert all(len(row) == len(COLUMNS) for row in cells)
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells[2:]]


def test_each_run_adds_a_line_at_the_end_of_the_table(speedrun, tmp_path):
    file = tmp_path / "docs" / "records.md"
    speedrun(record=file, note="a | b\nc", command="t2i bench speedrun")
    text = file.read_text()
    file.write_text(text + "\nWords below the table.\n")
    speedrun(record=file, out=tmp_path / "two", seed=4, targets=(6, 50), sets=("lr=2",))
    first, second = rows(file)
    assert file.read_text().endswith(" |\n\nWords below the table.\n")
    assert first["benchmark"] == "ramps, 12 captions"
    assert (first["model"], first["mark"]) == ("ramp (tiny)", "3 / 6")
    assert (first["steps"], first["score"]) == ("9 / 11", f"6.00 (5.00{DASH}7.00)")
    assert first["arithmetic"] == "450 FLOP / 650 FLOP"
    assert (first["machine"], first["note"]) == ("500 FLOP/s", "a &bar; b c")
    assert (first["changed"], first["command"]) == (DASH, "`t2i bench speedrun`")
    assert (second["seed"], second["changed"]) == ("4", "lr=2.0")
    reached, missed = second["minutes"].split(" / ")
    assert missed.startswith("not in ")
    assert float(reached) < float(missed.removeprefix("not in "))


def test_a_line_is_added_again_when_it_is_asked_for_again(speedrun, tmp_path):
    for _ in range(2):
        speedrun(record=tmp_path / "records.md")
    assert len(rows(tmp_path / "records.md")) == 2


@pytest.mark.parametrize("content", [b"# Other\n\n| a | b |\n|---|---|\n", b"\xff\xfe\x00"])
def test_another_file_is_refused_before_training(speedrun, tmp_path, content):
    file = tmp_path / "other.md"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"--record .*other.md: .*; name a new file"):
        speedrun(record=file)
    assert file.read_bytes() == content
    assert not (tmp_path / "out").exists()


def test_a_folder_is_no_file_of_records(speedrun, tmp_path):
    with pytest.raises(UserError, match="no regular file; name a new file"):
        speedrun(record=tmp_path)


def test_the_projects_own_page_can_be_added_to(request):
    page = request.config.rootpath / "docs" / "speedruns.md"
    assert HEAD in page.read_text("utf-8").splitlines()
