"""docs/reliability.md: every promise names a test that exists, and every test of tests/reliability
has its promise."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
NAMES = sorted(set(NAMED.findall((ROOT / "docs" / "reliability.md").read_text("utf-8"))))


def functions_of(path):
    return {
        node.name
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize(("file", "name"), NAMES)
def test_the_test_that_holds_a_promise_exists(file, name):
    assert name in functions_of(ROOT / file)


def test_every_row_of_promises_names_a_test():
    rows = [
        line
        for line in (ROOT / "docs" / "reliability.md").read_text("utf-8").splitlines()
        if line[:1] == "|"
    ]
    promises = [row for row in rows if row not in ("| promise | test |", "|---|---|")]
    assert len(promises) > 40
    assert [row for row in promises if not NAMED.search(row)] == []


def test_few_functions_of_reliability_are_without_a_promise():
    held = {name for _, name in NAMES}
    all_of_them = {
        name
        for path in (ROOT / "tests" / "reliability").glob("test_*.py")
        for name in functions_of(path)
        if name.startswith("test_")
    }
    without = {
        "test_what_is_configured_is_a_name", "test_a_run_is_loaded_from_links_to_it",
        "test_a_manifest_cannot_point_out_of_its_folder",
        "test_a_disk_that_cannot_hold_a_run_is_refused_before_it_begins",
    }  # fmt: skip
    assert all_of_them - held == without
