"""The tutorial of docs/plugins.md, run as it is written: its commands in a real environment, its
files as they are."""

import json
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"
BLOCK = re.compile(
    r"(?:`(?P<path>[\w./-]+\.py)`[^`]*)?^```(?P<kind>sh|python)\n(?P<text>.*?)^```$", re.M | re.S
)


def steps():
    """(path, text) of the tutorial's blocks in order; the path is None for commands."""
    text = PAGE.read_text("utf-8")
    tutorial = text[text.index("## Tutorial") : text.index("## Reference")]
    for match in BLOCK.finditer(tutorial):
        assert match["kind"] == "sh" or match["path"], f"no path before: {match['text'][:80]}"
        yield (match["path"] if match["kind"] == "python" else None), match["text"]


@pytest.mark.slow
def test_the_tutorial(environment, tmp_path):
    said = []
    for path, text in steps():
        if path is None:
            said.append(environment.check("bash", "-e", "-c", text, cwd=tmp_path))
        else:
            assert (tmp_path / path).parent.is_dir(), path
            (tmp_path / path).write_text(text)
    listed, _, checked, tests, again, bench, removed = said
    assert re.search(r"^watercolour +one-shot ", listed, re.M)
    assert (tmp_path / "samples" / "first" / "0000-003.png").is_file()
    assert len(re.findall(r" ok +\d", checked)) == 15
    assert "15 passed" in tests
    assert len(re.findall(r"^(plugins|samplers) .* ok +\d", again, re.M)) == 7
    results = json.loads((tmp_path / "runs" / "bench" / "results.json").read_text())
    assert {row["name"] for row in results["rows"]} >= {"watercolour", "dfgan"}
    assert (tmp_path / "runs" / "bench" / "report.html").is_file()
    assert "watercolour" in bench
    assert removed == "removed watercolour 0.1.0\n"
