"""Thousands of mutated headers, configurations, manifests and states give our own errors, within
bounded memory."""

from pathlib import Path

import pytest

KINDS = ("tensors", "manifest", "config", "state")
MEMORY = 1200 * 2**20
SCRIPT = "import sys; sys.path.insert(0, {folder!r}); import fuzz; fuzz.main({run!r}, {place!r}, {kind!r}, {seed}, {n})"  # noqa: E501


@pytest.fixture
def fuzzed(nursery, reference, tmp_path):
    def go(kind, seed, n):
        given = {
            "run": str(reference("dfgan")),
            "place": str(tmp_path / f"{kind}-{seed}"),
            "kind": kind,
        }
        script = SCRIPT.format(folder=str(Path(__file__).parent), seed=seed, n=n, **given)
        done = nursery(script=script, memory=MEMORY)
        assert done.code == 0, done.err
        *worse, last = done.out.splitlines()
        assert last.startswith(f"{n} mutations of {kind}")
        assert worse == []

    return go


@pytest.mark.parametrize("kind", KINDS)
def test_mutations_give_our_own_errors(fuzzed, kind):
    fuzzed(kind, 0, 60)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(1, 6))
def test_ten_thousand_mutations_give_our_own_errors(fuzzed, kind, seed):
    fuzzed(kind, seed, 500)
