"""Thousands of mutated headers, configurations, manifests and states give our own errors, within
bounded memory."""

from pathlib import Path

import pytest
from diffusers import DDIMScheduler

from tests.plugins.models import test_ddpm_folders, test_ldm_folders

KINDS = ("tensors", "manifest", "config", "state")
MEMORY = 1200 * 2**20
FOLDERS_MEMORY = 3000 * 2**20
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


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """A folder of Stable Diffusion and one of DDPM, of a few thousand random weights."""
    place = tmp_path_factory.mktemp("pipelines")
    made = test_ldm_folders.pipeline(place, DDIMScheduler(**test_ldm_folders.SD))
    made.save_pretrained(place / "ldm")
    test_ddpm_folders.folder(place / "ddpm")
    return place


@pytest.fixture
def fuzzed_folder(nursery, pipelines, tmp_path):
    def go(model, seed, n):
        script = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import fuzz_folders; "
            f"fuzz_folders.main({str(pipelines / model)!r}, {str(tmp_path)!r}, {seed}, {n})"
        )
        done = nursery(script=script, memory=FOLDERS_MEMORY)
        *worse, last = done.out.splitlines()
        assert done.code == 0, done.err
        assert worse == []
        assert last.startswith(f"{n} mutations")

    return go


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ldm", "ddpm"])
def test_mutations_of_other_projects_folders_give_our_own_errors(fuzzed_folder, model):
    fuzzed_folder(model, 0, 40)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["ldm", "ddpm"])
@pytest.mark.parametrize("seed", range(1, 11))
def test_thousands_of_mutations_of_folders_give_our_own_errors(fuzzed_folder, model, seed):
    fuzzed_folder(model, seed, 150)
